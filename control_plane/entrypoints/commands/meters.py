"""`km meters`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.values import read_number, read_pairs

app = typer.Typer(help="Meters: what prices can count beside calls and reported units.", no_args_is_help=True)
COLUMNS = ("code", "name", "api_product", "aggregation", "value", "events", "filters", "archived_at")
FIELDS = ("id", *COLUMNS[:-2], "filters", "weights", "created_at", "archived_at")
USE_COLUMNS = ("plan", "version", "status", "model", "published_at")
BACKFILL_COLUMNS = ("id", "status", "starts_at", "subscriptions", "hours_done", "hours_skipped", "created_at")
VALUE_COLUMNS = ("start", "end", "account_id", "subscription_id", "meter", "aggregation", "value", "pending")
HOUR_COLUMNS = ("start", "account_id", "subscription_id", "meter", "aggregation", "value", "events")
CodeArgument = Annotated[str, typer.Argument(metavar="METER", help="The meter's code.")]
Several = list[str] | None
DEFAULTS = {"lowest_status": 0, "highest_status": 999}


@app.command("create")
def create(
    code: CodeArgument,
    *,
    name: Annotated[str, typer.Option(help="What people read on invoices.")],
    product: Annotated[str, typer.Option(help="The API product's code.")],
    aggregation: Annotated[str, typer.Option(help="count, sum, unique, max or latest.")],
    value: Annotated[
        str | None,
        typer.Option(help="A unit to sum or compare (like tokens, bytes_in), or what differs (properties.user)."),
    ] = None,
    events: Annotated[str, typer.Option(help="calls, reported or all.")] = "calls",
    endpoint: Annotated[Several, typer.Option(help="Only calls of this endpoint or route; repeatable.")] = None,
    method: Annotated[Several, typer.Option(help="Only calls of this method; repeatable.")] = None,
    lowest_status: Annotated[int | None, typer.Option(help="Only calls from this status on.")] = None,
    highest_status: Annotated[int | None, typer.Option(help="Only calls up to this status.")] = None,
    event_type: Annotated[Several, typer.Option(help="Only reported events of this type; repeatable.")] = None,
    source: Annotated[Several, typer.Option(help="Only reported events of this source; repeatable.")] = None,
    where: Annotated[Several, typer.Option(help="Only reported events with NAME=VALUE; repeatable.")] = None,
    weight: Annotated[Several, typer.Option(help="What a call counts for, 'GET /x=5'; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Declare a meter. It counts from now on: see `backfill`."""
    lists = {"endpoints": endpoint, "methods": method, "event_types": event_type, "sources": source}
    numbers = {"lowest_status": lowest_status, "highest_status": highest_status}
    filters: dict[str, Any] = {name: given for name, given in lists.items() if given}
    filters |= {name: given for name, given in numbers.items() if given is not None}
    if where:
        filters["properties"] = dict(read_pairs("--where", where))
    body = {
        "code": code,
        "name": name,
        "api_product": product,
        "aggregation": aggregation,
        "value": value,
        "events": events,
        "filters": filters,
        "weights": {
            name: read_number(f"--weight {name}", given) for name, given in read_pairs("--weight", weight or [])
        },
    }
    _print_meter(post("/meters", body), as_json=as_json)


@app.command("list")
def list_(
    *,
    product: Annotated[str | None, typer.Option(help="Only meters of one API product.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List meters."""
    found = list(pages("/meters", at_most=at_most, product=product, archived=archived or None))
    if as_json:
        print_json(found)
        return
    print_rows([meter | {"filters": _filters(meter["filters"])} for meter in found], COLUMNS)


@app.command("show")
def show(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Show a meter, and the plan versions with a price on it."""
    meter = get(f"/meters/{code}")
    _print_meter(meter, as_json=as_json)
    if meter["used_by"] and not as_json:
        typer.echo()
        print_rows(meter["used_by"], USE_COLUMNS)


@app.command("archive")
def archive(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Keep new prices from naming a meter; those that do go on."""
    _print_meter(post(f"/meters/{code}/archive"), as_json=as_json)


@app.command("backfill")
def backfill(
    code: CodeArgument,
    *,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="From this full hour; the beginning of each current period if left out."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count what was stored before the meter was declared, in the background."""
    job = post(f"/meters/{code}/backfills", {"starts_at": start})
    print_fields(_progress(job), BACKFILL_COLUMNS, as_json=as_json)


@app.command("backfills")
def backfills(
    code: CodeArgument,
    *,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how far the backfills of a meter are, newest first."""
    found = pages(f"/meters/{code}/backfills", at_most=at_most)
    print_rows([_progress(job) for job in found], BACKFILL_COLUMNS, as_json=as_json)


@app.command("values")
def values(
    *,
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only one account.")] = None,
    subscription: Annotated[str | None, typer.Option(metavar="ID", help="Only one subscription.")] = None,
    meter: Annotated[str | None, typer.Option(metavar="METER", help="Only one meter.")] = None,
    by: Annotated[str, typer.Option(help="period (of one account or subscription) or hour.")] = "period",
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="From, RFC 3339; 30 days before --end.")
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Up to, RFC 3339; the end of this hour.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Show what meters came to, by billing period or by hour."""
    wanted = {"account_id": account, "subscription_id": subscription, "meter": meter, "by": by}
    found = pages("/usage/meters", at_most=at_most, **wanted, start=start, end=end)
    print_rows(found, HOUR_COLUMNS if by == "hour" else VALUE_COLUMNS, as_json=as_json)


def _print_meter(meter: dict[str, Any], *, as_json: bool) -> None:
    shown = meter if as_json else meter | {"filters": _filters(meter["filters"])}
    print_fields(shown, FIELDS, as_json=as_json)


def _filters(filters: dict[str, Any]) -> str:
    given = [f"{name}: {_text(value)}" for name, value in filters.items() if value and value != DEFAULTS.get(name)]
    return "; ".join(given) or "-"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


def _progress(job: dict[str, Any]) -> dict[str, Any]:
    return job | {"subscriptions": f"{job['subscriptions_done']:,} of {job['subscriptions_total']:,}"}
