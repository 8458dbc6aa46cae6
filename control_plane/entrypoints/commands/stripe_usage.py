"""`km stripe usage`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

app = typer.Typer(
    no_args_is_help=True, help="Usage on its way to Stripe: how far it is, what was refused, sending it once more."
)
PROGRESS = ("meter", "waiting_rows", "unknown_rows", "refused_rows", "oldest_sealed_at")
COLUMNS = ("account_id", "meter", "hour", "revision", "delta_units", "state", "reason", "attempts", "error")
ERRORS = ("reported_at", "code", "error_count", "rows_found", "rows_doubted", "sentence", "to_do")
RETRIED = ("account_id", "meter", "hour", "revision", "delta_units", "state", "reason", "outcome")
DIFFERENCES = ("meter", "start", "end", "delivered_units", "stripe_units", "units")
State = Annotated[
    str | None,
    typer.Option(help="waiting, sent, delivered, cancelled, refused, too_old or ours."),
]
Account = Annotated[str | None, typer.Option(metavar="ID", help="Of one account.")]
Subscription = Annotated[str | None, typer.Option(metavar="ID", help="Of one subscription.")]
Which = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its id.")]
Meter = Annotated[str | None, typer.Option(metavar="CODE", help="Of one meter.")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Hours from, RFC 3339.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Hours before, RFC 3339.")]
From = Annotated[str, typer.Option("--start", metavar="TIME", help="From, RFC 3339.")]
Before = Annotated[str, typer.Option("--end", metavar="TIME", help="Before, RFC 3339.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept.")]


@app.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Say what usage Stripe does not have yet, by meter; fails if any was refused."""
    meters = get("/stripe/usage")["meters"]
    if meters or as_json:
        print_rows(meters, PROGRESS, as_json=as_json)
    else:
        typer.echo("Stripe has all usage that is sealed")
    if any(meter["refused_rows"] for meter in meters):
        raise typer.Exit(1)


@app.command("list")
def list_rows(
    *,
    state: State = None,
    account: Account = None,
    subscription: Subscription = None,
    meter: Meter = None,
    start: Start = None,
    end: End = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List rows of sealed usage and what became of them, account by account in the order of time."""
    found = pages(
        "/stripe/usage/rows",
        at_most=at_most,
        state=state,
        account_id=account,
        subscription_id=subscription,
        meter=meter,
        start=start,
        end=end,
    )
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("errors")
def errors(
    *,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what Stripe reported of usage that it took and does not count, and what to do about it."""
    print_rows(pages("/stripe/usage/errors", at_most=at_most), ERRORS, as_json=as_json)


@app.command("compare")
def compare(subscription: Which, *, start: From, end: Before, as_json: AsJson = False) -> None:
    """Compare Stripe's summaries with what was delivered, and name the hours that differ; fails if any does."""
    path = "/stripe/usage/differences"
    answer = get(path, subscription_id=subscription, start=start, end=end)
    if as_json:
        print_json(answer)
    elif answer["differences"]:
        print_rows(answer["differences"], DIFFERENCES)
        print_rows(answer["hours"], DIFFERENCES, title="By hour")
    else:
        typer.echo("Stripe counts what was delivered")
    if answer["differences"]:
        raise typer.Exit(1)


@app.command("retry")
def retry(
    *,
    state: State = None,
    account: Account = None,
    subscription: Subscription = None,
    meter: Meter = None,
    start: Start = None,
    end: End = None,
    assume: Annotated[
        str | None, typer.Option(help="Take rows of unknown outcome for delivered, or for missing.")
    ] = None,
    dry_run: DryRun = False,
    reason: Why,
    as_json: AsJson = False,
) -> None:
    """Have rows tried once more: refused ones under another identifier, waiting and unknown ones as they are."""
    body = {
        "state": state,
        "account_id": account,
        "subscription_id": subscription,
        "meter": meter,
        "start": start,
        "end": end,
        "assume": assume,
        "dry_run": dry_run,
        "reason": reason,
    }
    _tell(post("/stripe/usage/retry", body), as_json=as_json)


@app.command("replay")
def replay(
    subscription: Which,
    *,
    start: From,
    end: Before,
    dry_run: DryRun = False,
    reason: Why,
    as_json: AsJson = False,
) -> None:
    """Send delivered rows anew that Stripe's summaries lack: only those that make up exactly what is lacking."""
    body = {"subscription_id": subscription, "start": start, "end": end, "dry_run": dry_run, "reason": reason}
    _tell(post("/stripe/usage/replay", body), as_json=as_json)


def _tell(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    if answer["rows"]:
        print_rows(answer["rows"], RETRIED)
    outcomes = [row["outcome"].replace("_", " ") for row in answer["rows"]]
    counts = ", ".join(f"{outcomes.count(one):,} {one}" for one in sorted(set(outcomes)))
    typer.echo((counts or "no such rows") + ("; nothing was done (--dry-run)" if answer["dry_run"] else ""))
