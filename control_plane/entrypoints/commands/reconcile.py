"""`km reconcile`."""

import time
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows
from control_plane.foundation.money import Money

LINK_COLUMNS = ("compared", "state", "checked", "checked_what", "expected", "found", "wrong", "waiting")
DIFFERENCE_COLUMNS = ("account_id", "cause", "meter", "start", "expected", "found", "detail")
LOOK_SECONDS = 0.3
NOT_WORKED_OUT = 2


def reconcile(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="All accounts if left out.")] = None,
    *,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="From, RFC 3339, a full hour; 35 days back if left out.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to, RFC 3339; the start of this hour if left out.")
    ] = None,
    without_stripe: Annotated[
        bool, typer.Option("--without-stripe", help="Do not ask Stripe for what it has added up.")
    ] = False,
    last: Annotated[
        bool, typer.Option("--last", help="Show the last one that is there; compare nothing.")
    ] = False,
    at_most: Annotated[int, typer.Option(min=1, help="How many differences at most.")] = 50,
    wait: Annotated[int, typer.Option(min=1, help="For how many seconds to wait for the outcome.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Compare gateway, events, rollups, ledger, Stripe and invoices; say where they differ, and why.

    Exit code 1: something differs. 2: it could not be worked out.
    """
    run = _last() if last else _started(account, start, end, without_stripe=without_stripe, wait=wait)
    found = list(pages(f"/reconciliations/{run['id']}/differences", at_most=at_most))
    if as_json:
        print_json({**run, "differences": found})
    else:
        print_rows(({**link, "state": link["state"].replace("_", " ")} for link in run["links"]), LINK_COLUMNS)
        if found:
            typer.echo()
            print_rows((_shown(one) for one in found), DIFFERENCE_COLUMNS)
        for link in run["links"]:
            if link["note"]:
                typer.echo(f"{link['compared']}: {link['note']}", err=True)
        typer.echo(_summary(run, len(found)), err=True)
    if run["state"] == "differs":
        raise typer.Exit(1)


def _started(
    account: str | None, start: str | None, end: str | None, *, without_stripe: bool, wait: int
) -> dict[str, Any]:
    body = {"account_id": account, "start": start, "end": end, "with_stripe": not without_stripe}
    run: dict[str, Any] = post("/reconciliations", body)
    give_up_at = time.monotonic() + wait
    while run["status"] == "queued":
        if time.monotonic() > give_up_at:
            typer.echo(f"not worked out after {wait} seconds: is a worker running? {run['id']} goes on", err=True)
            raise typer.Exit(NOT_WORKED_OUT)
        time.sleep(LOOK_SECONDS)
        run = get(f"/reconciliations/{run['id']}")
    if run["status"] == "failed":
        typer.echo(run["error"], err=True)
        raise typer.Exit(NOT_WORKED_OUT)
    return run


def _last() -> dict[str, Any]:
    done = [run for run in pages("/reconciliations", at_most=50) if run["status"] == "done"]
    if not done:
        fail("nothing has been compared yet")
    return done[0]


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    unit = one["unit"]
    shown = {
        name: str(Money(one[name], unit)) if unit.isupper() else f"{one[name]:,}" for name in ("expected", "found")
    }
    return {
        **one,
        **shown,
        "cause": one["cause"].replace("_", " ") + (" (waiting)" * (one["severity"] == "waiting")),
    }


def _summary(run: dict[str, Any], shown: int) -> str:
    wrong = sum(link["wrong"] for link in run["links"])
    waiting = sum(link["waiting"] for link in run["links"])
    words = {
        "equal": "Everything is equal",
        "waiting": f"Equal, but for {waiting:,} that are on their way",
        "differs": f"{wrong:,} differ, {waiting:,} are on their way",
        "not_checked": "There was nothing to compare",
    }[run["state"]]
    more = f"; the first {shown:,} are shown" if wrong + waiting > shown else ""
    return f"{words}{more}. {run['start']} to {run['end']}, {run['id']}."
