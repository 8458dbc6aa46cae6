"""`km requests`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import get, pages
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.usage import End, Key, Mode, Product, Start

app = typer.Typer(help="Requests one by one: search them, and see what is known of one.", no_args_is_help=True)
COLUMNS = ("occurred_at", "account_id", "status", "outcome", "method", "path", "mode", "units", "request_id")
DETAILS = (
    "event.event_id",
    "event.request_id",
    "receipt_id",
    "event.occurred_at",
    "event.account_id",
    "event.key_id",
    "key_name",
    "event.mode",
    "event.product",
    "event.endpoint",
    "event.method",
    "event.path",
    "event.status",
    "event.outcome",
    "event.units",
    "event.dimensions",
    "event.bytes_in",
    "event.bytes_out",
    "event.latency_ms",
    "event.gateway_ms",
    "event.upstream_ms",
    "event.client_ip",
    "event.flags",
    "event.call_number",
    "event.shipper",
    "billing.billed",
    "billing.text",
    "billing.plan",
    "billing.plan_version",
    "hour.hour",
    "hour.state",
    "hour.revision",
    "hour.sealed_at",
    "rollup.calls",
    "rollup.billable_calls",
)
Account = Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only one account.")]
Endpoint = Annotated[str | None, typer.Option(help="Only one endpoint.")]
Outcome = Annotated[str | None, typer.Option(help="Like served, rate_limited, quota_exceeded.")]
Status = Annotated[str | None, typer.Option(help="404, 4xx or 400-428.")]
RequestId = Annotated[str | None, typer.Option("--request", metavar="ID", help="X-Kong-Request-Id of one.")]
Unattributed = Annotated[bool, typer.Option("--unattributed", help="Only the calls of nobody.")]


@app.command("list")
def search(
    *,
    account: Account = None,
    unattributed: Unattributed = False,
    start: Start = None,
    end: End = None,
    product: Product = None,
    key: Key = None,
    mode: Mode = None,
    endpoint: Endpoint = None,
    outcome: Outcome = None,
    status: Status = None,
    request: RequestId = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Id of one event.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Oldest first, else newest.")] = False,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Search the requests of all accounts, or of one."""
    found = pages(
        "/requests",
        at_most=at_most,
        account_id=account,
        unattributed=unattributed or None,
        start=start,
        end=end,
        product=product,
        key_id=key,
        mode=mode,
        endpoint=endpoint,
        outcome=outcome,
        status=status,
        request_id=request,
        event_id=event,
        order="oldest" if oldest_first else None,
    )
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(
    request: Annotated[str, typer.Argument(metavar="ID", help="The X-Kong-Request-Id, or the event's id.")],
    *,
    account: Account = None,
    as_json: AsJson = False,
) -> None:
    """Show everything known of one request: is it billed and why, its hour, its row of the rollup."""
    answer = get(f"/requests/{request}", account_id=account)
    if as_json:
        print_json(answer)
    else:
        print_fields(answer, DETAILS)
