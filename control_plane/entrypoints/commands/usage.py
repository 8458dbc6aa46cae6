"""`km usage` and what goes with it, `km events`."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from control_plane.entrypoints.commands import corrections, dead_letters
from control_plane.entrypoints.commands.client import get, pages
from control_plane.entrypoints.commands.completeness import completeness
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

COLUMNS = ("calls", "units", "billable_calls", "billable_units", "bytes_out")
EVENT_COLUMNS = ("occurred_at", "status", "outcome", "method", "path", "mode", "units", "latency_ms", "request_id")
Start = Annotated[
    str | None, typer.Option(metavar="TIME", help="From, RFC 3339; 30 days before --end if left out.")
]
End = Annotated[
    str | None, typer.Option(metavar="TIME", help="Up to, RFC 3339; the end of this hour if left out.")
]
Product = Annotated[str | None, typer.Option(help="Only one API product.")]
Key = Annotated[str | None, typer.Option(metavar="KEY_ID", help="Only one key.")]
Mode = Annotated[str | None, typer.Option(help="Only live or only test calls.")]


class UsageCommands(TyperGroup):
    """`km usage ACCOUNT` is `km usage show ACCOUNT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take what names no command as an argument of `show`."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=UsageCommands, help="Usage of an account, or of all: `km usage [ACCOUNT]`; and whether it is complete."
)
app.add_typer(dead_letters.app, name="dead-letters")
app.command("completeness")(completeness)
app.command("void")(corrections.void)
app.command("amend")(corrections.amend)
app.command("withdraw")(corrections.withdraw)
app.command("corrections")(corrections.corrections)


@app.command("show")
def usage(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="All accounts if left out.")] = None,
    *,
    by: Annotated[
        str,
        typer.Option(
            help="account, endpoint, status, status_class, key, outcome, mode, product, amendment, hour, day, "
            "week, month; several with commas."
        ),
    ] = "endpoint",
    start: Start = None,
    end: End = None,
    product: Product = None,
    key: Key = None,
    mode: Mode = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="As it was sealed at this past moment, RFC 3339.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show usage of an account, or of all: calls, units and what is billable."""
    path = f"/accounts/{account}/usage" if account else "/usage"
    groups = list(dict.fromkeys(group.strip() for group in by.split(",")))
    answer = get(path, group_by=groups, start=start, end=end, product=product, key_id=key, mode=mode, as_of=as_of)
    if as_json:
        print_json(answer)
        return
    rows = answer["items"]
    print_rows([_named(row) for row in rows], (*groups, *COLUMNS))
    if answer["open_hours"]:
        hours = "hour" if answer["open_hours"] == 1 else "hours"
        what = "can still change" if as_of is None else "not sealed at that moment"
        typer.echo(f"{answer['open_hours']} {hours} {what}.", err=True)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    # a call without a valid key has no account, key or product
    by = {name: value or "-" for name, value in row["by"].items()}
    if "key" in by:
        by["key"] = row["key_name"] or by["key"]
    return {**by, **row}


def events(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="The account's id.")] = None,
    *,
    unattributed: Annotated[
        bool, typer.Option("--unattributed", help="Calls of nobody: no key, a mistyped or an unknown one.")
    ] = False,
    start: Start = None,
    end: End = None,
    product: Product = None,
    key: Key = None,
    mode: Mode = None,
    endpoint: Annotated[str | None, typer.Option(help="Only one endpoint.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Like served, rate_limited, quota_exceeded.")] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Only one request.")] = None,
    status: Annotated[int | None, typer.Option(help="Only one status.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show an account's requests, or those that belong to nobody, newest first."""
    if (account is None) is not unattributed:
        raise typer.BadParameter("give an account, or --unattributed")
    found = pages(
        "/unattributed-events" if account is None else f"/accounts/{account}/events",
        at_most=at_most,
        start=start,
        end=end,
        product=product,
        key_id=key,
        mode=mode,
        endpoint=endpoint,
        outcome=outcome,
        request_id=request,
        lowest_status=status,
        highest_status=status,
    )
    print_rows(found, EVENT_COLUMNS, as_json=as_json)
