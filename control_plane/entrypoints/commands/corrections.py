"""`km usage void`, `km usage amend`, `km usage corrections`, `km usage withdraw`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_rows

VOID_FIELDS = ("id", "account_id", "hour", "event_id", "reason", "author", "created_at", "withdrawal.reason")
AMENDMENT_FIELDS = (
    "id",
    "account_id",
    "hour",
    "product",
    "phase_id",
    "key_id",
    "calls",
    "meters",
    "reference",
    "reason",
    "author",
    "created_at",
    "withdrawal.reason",
)
VOID_COLUMNS = ("id", "hour", "event_id", "reason", "author", "created_at", "withdrawal.created_at")
AMENDMENT_COLUMNS = ("id", "hour", "calls", "meters", "reason", "author", "created_at", "withdrawal.created_at")

Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")]
Hour = Annotated[str, typer.Argument(metavar="HOUR", help="The full hour, RFC 3339: 2026-11-23T09:00:00Z.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept for good, with your name.")]


def void(
    account: Account,
    hour: Hour,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's id, as `km events --json` shows it.")],
    *,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Have one event count nothing; it stays in the request history. Repeatable."""
    body = {"account_id": account, "hour": hour, "event_id": event, "reason": reason}
    print_fields(post("/usage/voids", body), VOID_FIELDS, as_json=as_json)


def amend(
    account: Account,
    hour: Hour,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")],
    *,
    reason: Reason,
    calls: Annotated[int, typer.Option(help="Billable calls to add; below zero to take away.")] = 0,
    meter: Annotated[
        list[str] | None, typer.Option(metavar="METER=UNITS", help="Like requests=-12 or tokens=500; repeatable.")
    ] = None,
    phase: Annotated[str | None, typer.Option(help="Which phase, where the hour has several.")] = None,
    key: Annotated[str, typer.Option(help="The key it is about.")] = "",
    endpoint: Annotated[str, typer.Option(help="The endpoint it is about.")] = "",
    reference: Annotated[
        str | None, typer.Option(help="Your own name for it: sent again, it changes nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add to what is billable of an hour, or take from it; never below zero."""
    body: dict[str, Any] = {
        "account_id": account,
        "hour": hour,
        "product": product,
        "phase_id": phase,
        "key_id": key,
        "endpoint": endpoint,
        "calls": calls,
        "meters": dict(_amount(text) for text in meter or ()),
        "reference": reference,
        "reason": reason,
    }
    print_fields(post("/usage/amendments", body), AMENDMENT_FIELDS, as_json=as_json)


def withdraw(
    correction: Annotated[str, typer.Argument(metavar="CORRECTION", help="The void's or amendment's id.")],
    *,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Take a void or an amendment back. Repeatable."""
    kinds = {"uvd_": ("voids", VOID_FIELDS), "uam_": ("amendments", AMENDMENT_FIELDS)}
    if correction[:4] not in kinds:
        fail(f"{correction} is the id of no correction: voids begin with uvd_, amendments with uam_")
    kind, fields = kinds[correction[:4]]
    print_fields(post(f"/usage/{kind}/{correction}/withdraw", {"reason": reason}), fields, as_json=as_json)


def corrections(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="All accounts if left out.")] = None,
    *,
    amendments: Annotated[
        bool, typer.Option("--amendments", help="Amended hours instead of voided events.")
    ] = False,
    hour: Annotated[str | None, typer.Option(metavar="HOUR", help="Only one hour, RFC 3339.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List voided events, or amended hours, the last one first."""
    kind, columns = ("amendments", AMENDMENT_COLUMNS) if amendments else ("voids", VOID_COLUMNS)
    found = pages(f"/usage/{kind}", at_most=at_most, account_id=account, hour=hour)
    print_rows(found, columns, as_json=as_json)


def _amount(text: str) -> tuple[str, int]:
    name, _, units = text.partition("=")
    try:
        return name, int(units)
    except ValueError:
        raise typer.BadParameter(f"--meter {text}: use METER=UNITS, like requests=-12") from None
