"""`km usage completeness`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

COLUMNS = (
    "hour",
    "account_name",
    "product",
    "mode",
    "state",
    "admitted",
    "stored",
    "unnumbered",
    "rolled_up",
    "missing_calls",
    "settled",
)
RANGE_COLUMNS = ("hour", "account_name", "subscription_id", "mode", "first", "last", "after", "before", "nodes")


def completeness(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="All accounts if left out.")] = None,
    *,
    state: Annotated[
        str | None,
        typer.Option(help="waiting, complete, missing, surplus, unknown; incomplete is the last three."),
    ] = None,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="Show missing call numbers with time and node instead of hours.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Have these hours checked again.")] = False,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="From, RFC 3339; 30 days before --end if left out.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to, RFC 3339; the end of this hour if left out.")
    ] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many hours at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show whether every call that the gateway admitted is in usage, hour by hour, newest first."""
    overview = get("/completeness/overview", account_id=account, start=start, end=end)
    if again:
        body = {"account_id": account, "start": overview["start"], "end": overview["end"]}
        typer.echo(f"{post('/completeness/checks', body)['hours']} hours will be checked again.")
        return
    wanted = "incomplete" if ranges and state is None else state
    found = pages("/completeness", at_most=at_most, account_id=account, state=wanted, start=start, end=end)
    if ranges:
        print_rows(_ranges(found), RANGE_COLUMNS, as_json=as_json)
    elif as_json:
        print_json({"overview": overview, "items": list(found)})
    else:
        print_rows((_named(row) for row in found), COLUMNS)
    if not as_json:
        typer.echo(_summary(overview), err=True)


def _ranges(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for part in row["missing"]:
            yield {**_named(row), **part}


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "account_name": row["account_name"] or row["account_id"]}


def _summary(overview: dict[str, Any]) -> str:
    states = overview["hours_by_state"]
    parts = [f"{overview['missing_calls']:,} of {overview['admitted']:,} calls missing"]
    parts += [f"{states[state]:,} hours {state}" for state in ("missing", "surplus", "unknown") if states[state]]
    if overview["differing_hours"]:
        parts.append(f"{overview['differing_hours']:,} hours whose rollup differs from their events")
    if overview["wrongly_settled_hours"]:
        parts.append(f"{overview['wrongly_settled_hours']:,} hours whose counter differs from the bill")
    return f"{'; '.join(parts)}. Last check: {overview['checked_at'] or 'never'}."
