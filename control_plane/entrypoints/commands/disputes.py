"""`km disputes`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import download, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.requests import Endpoint, Outcome, Status
from control_plane.entrypoints.commands.usage import End, Key, Mode, Product, Start

app = typer.Typer(help="Disputes: cases about requests, with their trail.", no_args_is_help=True)
COLUMNS = ("id", "account_id", "status", "decision", "request_count", "subject", "opened_at")
FIELDS = (*COLUMNS, "reason", "period_text", "amount_text", "opened_by", "explanation", "decided_at")
REQUEST_COLUMNS = ("occurred_at", "status", "outcome", "method", "path", "units", "event_id", "request_id")
HOUR_COLUMNS = ("hour", "requests", "revision", "sealed_at", "root")
SHOWN = 50
MANY = 10_000
DisputeId = Annotated[str, typer.Argument(metavar="ID", help="The dispute's id.")]
Events = Annotated[list[str], typer.Option("--event", metavar="ID", help="Id of an event; repeatable.")]
Requests = Annotated[list[str], typer.Option("--request", metavar="ID", help="X-Kong-Request-Id; repeatable.")]
Words = Annotated[str, typer.Option("--text", help="What to write into the trail.")]


@app.command("open")
def open_case(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="What it is about, in a line.")],
    *,
    reason: Annotated[str | None, typer.Option(help="What the customer says.")] = None,
    period: Annotated[str | None, typer.Option(help="The disputed period, in words.")] = None,
    amount: Annotated[str | None, typer.Option(help="The disputed amount, in words.")] = None,
    event: Events = [],  # noqa: B006 - typer's way to say that none is given
    request: Requests = [],  # noqa: B006 - the same
    start: Start = None,
    end: End = None,
    product: Product = None,
    key: Key = None,
    mode: Mode = None,
    endpoint: Endpoint = None,
    outcome: Outcome = None,
    status: Status = None,
    as_json: AsJson = False,
) -> None:
    """Open a case. Its requests are named, or found by filters; without either it has none yet."""
    selection = _selection(
        event_ids=event,
        request_ids=request,
        start=start,
        end=end,
        product=product,
        key_id=key,
        mode=mode,
        endpoint=endpoint,
        outcome=outcome,
        status=status,
    )
    body = {
        "account_id": account,
        "subject": subject,
        "reason": reason,
        "period_text": period,
        "amount_text": amount,
        "requests": selection or None,
    }
    _print(post("/disputes", body), as_json=as_json)


@app.command("add")
def add(
    dispute: DisputeId,
    *,
    event: Events = [],  # noqa: B006 - typer's way to say that none is given
    request: Requests = [],  # noqa: B006 - the same
    start: Start = None,
    end: End = None,
    product: Product = None,
    key: Key = None,
    mode: Mode = None,
    endpoint: Endpoint = None,
    outcome: Outcome = None,
    status: Status = None,
    as_json: AsJson = False,
) -> None:
    """Add requests to a case that is not decided."""
    body = _selection(
        event_ids=event,
        request_ids=request,
        start=start,
        end=end,
        product=product,
        key_id=key,
        mode=mode,
        endpoint=endpoint,
        outcome=outcome,
        status=status,
    )
    _print(post(f"/disputes/{dispute}/requests", body), as_json=as_json)


@app.command("list")
def list_cases(
    *,
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only one account.")] = None,
    status: Annotated[str | None, typer.Option(help="open, under_review, decided or closed.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List cases, newest first."""
    found = pages("/disputes", at_most=at_most, account_id=account, status=status)
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(dispute: DisputeId, *, as_json: AsJson = False) -> None:
    """Show a case: the trail, its requests, and the hours that these are counted in."""
    case = get(f"/disputes/{dispute}")
    case["trail"] = list(pages(f"/disputes/{dispute}/steps", at_most=MANY))
    case["hours"] = get(f"/disputes/{dispute}/hours")["items"]
    case["requests"] = list(pages(f"/disputes/{dispute}/requests", at_most=MANY if as_json else SHOWN))
    if as_json:
        print_json(case)
        return
    print_fields(case, FIELDS)
    typer.echo("\nTrail")
    for entry in case["trail"]:
        typer.echo(_entry(entry))
    typer.echo("\nHours")
    print_rows(case["hours"], HOUR_COLUMNS)
    typer.echo("\nRequests")
    print_rows([row["event"] for row in case["requests"]], REQUEST_COLUMNS)
    if case["request_count"] > SHOWN:
        typer.echo(f"and {case['request_count'] - SHOWN:,} more: km disputes export {dispute}", err=True)


@app.command("note")
def note(
    dispute: DisputeId,
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    *,
    internal: Annotated[bool, typer.Option("--internal", help="Leave it out of the customer's file.")] = False,
) -> None:
    """Add a note to the trail; it can never be changed."""
    _print(post(f"/disputes/{dispute}/notes", {"text": text, "internal": internal}))


@app.command("review")
def review(dispute: DisputeId, *, text: Words = "") -> None:
    """Begin to look into an open case."""
    _print(post(f"/disputes/{dispute}/review", {"text": text}))


@app.command("decide")
def decide(
    dispute: DisputeId,
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="accepted, partly or rejected.")],
    explanation: Annotated[str, typer.Argument(metavar="EXPLANATION", help="Why; the customer reads it.")],
    *,
    void: Annotated[bool, typer.Option("--void", help="Have its requests count nothing from now on.")] = False,
    event: Events = [],  # noqa: B006 - typer's way to say that none is given
) -> None:
    """Decide a case under review; --void takes its requests (or those named by --event) out of the count."""
    body = {
        "decision": decision,
        "explanation": explanation,
        "void_requests": void or None,
        "void_only": event or None,
    }
    _print(post(f"/disputes/{dispute}/decide", body))


@app.command("close")
def close(dispute: DisputeId, *, text: Words = "") -> None:
    """Close a decided case."""
    _print(post(f"/disputes/{dispute}/close", {"text": text}))


@app.command("reopen")
def reopen(dispute: DisputeId, *, text: Words = "") -> None:
    """Take a decided or closed case up again."""
    _print(post(f"/disputes/{dispute}/reopen", {"text": text}))


@app.command("export")
def export(
    dispute: DisputeId,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the zip goes.")
    ] = None,
) -> None:
    """Write the case for the customer: a zip without internal notes."""
    target = output or Path(f"{dispute}.zip")
    download(f"/disputes/{dispute}/case-file", target)
    typer.echo(str(target), err=True)


def _selection(**wanted: Any) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value}


def _entry(entry: dict[str, Any]) -> str:
    mark = " (internal)" if entry["internal"] else ""
    line = f"{entry['number']:>3}  {entry['at']}  {entry['author']}  {entry['step'].replace('_', ' ')}{mark}"
    details = "".join(f"\n     {name}: {value}" for name, value in entry["details"].items() if name != "voids")
    text = "".join(f"\n     {words}" for words in entry["text"].splitlines())
    return line + text + details


def _print(dispute: dict[str, Any], *, as_json: bool = False) -> None:
    if as_json:
        print_json(dispute)
    else:
        print_fields(dispute, FIELDS)
