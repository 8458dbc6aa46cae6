"""`km stripe events` and `km stripe resync`."""

import time
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(
    no_args_is_help=True, help="Events of Stripe's: what came, what became of it; act on them once more."
)
COLUMNS = ("id", "type", "object_id", "state", "attempts", "received_at", "reason")
FIELDS = (
    "id",
    "type",
    "kind",
    "object_id",
    "state",
    "reason",
    "attempts",
    "next_attempt_at",
    "handled_at",
    "created_at",
    "received_at",
    "source",
    "deliveries",
    "last_delivered_at",
)
STANDING = ("waiting", "oldest_received_at", "dead", "lists_read_at")
POLL_SECONDS = 0.3
Object = Annotated[str | None, typer.Option("--object", metavar="ID", help="Of one object, like sub_... .")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="From, RFC 3339.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Before, RFC 3339.")]


@app.command("list")
def list_events(
    *,
    state: Annotated[str | None, typer.Option(help="waiting, done, ignored or dead.")] = None,
    of_type: Annotated[str | None, typer.Option("--type", help="Like invoice.paid.")] = None,
    of_object: Object = None,
    start: Start = None,
    end: End = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List events, those that came last first; the time is that of their coming."""
    found = pages(
        "/stripe/events", at_most=at_most, state=state, type=of_type, object_id=of_object, start=start, end=end
    )
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(
    event: Annotated[str, typer.Argument(metavar="ID")],
    *,
    body: Annotated[bool, typer.Option("--body", help="Only what the webhook brought, as it was signed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show an event and what became of it."""
    found = get(f"/stripe/events/{event}")
    if not body:
        print_fields(found, FIELDS, as_json=as_json)
    elif found["body"] is None:
        fail("no body: none came, or it is no longer kept")
    else:
        typer.echo(found["body"])


@app.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Say how many events wait, since when, and how many were given up; fails if any was."""
    standing = get("/stripe/inbox")
    print_fields(standing, STANDING, as_json=as_json)
    if standing["dead"]:
        raise typer.Exit(1)


@app.command("replay")
def replay(
    events: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which events.")] = None,
    *,
    of_object: Object = None,
    start: Start = None,
    end: End = None,
    state: Annotated[
        list[str] | None, typer.Option(help="With --object or --start: only dead ones, say; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Act on events once more: those named, those of an object, or those that Stripe made in a range of time.

    Their objects are read again, so nothing can happen twice. Of a range, Stripe's own list is read again, too.
    """
    body = {
        "event_ids": events or [],
        "object_id": of_object or "",
        "start": start,
        "end": end,
        "states": state or [],
        "dry_run": dry_run,
    }
    answer = post("/stripe/events/replay", body)
    if as_json:
        print_json(answer)
        return
    print_rows(answer["events"], ("id", "type", "object_id", "created_at", "outcome"))
    typer.echo(_told(answer))


def _told(answer: dict[str, Any]) -> str:
    counts = [f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in answer["outcomes"].items()]
    parts = [", ".join(counts) or "no event of ours"]
    if answer["listed_from"]:
        parts.append(f"Stripe's lists are read again from {answer['listed_from']}")
    if answer["dry_run"]:
        parts.append("nothing was done (--dry-run)")
    return "; ".join(parts)


def resync(
    thing: Annotated[str, typer.Argument(metavar="ID", help="Like sub_..., in_..., cus_... or cs_... .")],
    *,
    wait: Annotated[int, typer.Option(min=0, metavar="SECONDS", help="How long to wait for it.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Read one object at Stripe again, whatever events say, and show what came of it."""
    event_id = post("/stripe/resync", {"object_id": thing})["event_id"]
    deadline = time.monotonic() + wait
    found = get(f"/stripe/events/{event_id}")
    while found["state"] == "waiting" and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        found = get(f"/stripe/events/{event_id}")
    print_fields(found, ("id", "kind", "object_id", "state", "reason", "attempts", "handled_at"), as_json=as_json)
    if found["state"] == "waiting":
        fail(f"not read yet: {found['reason'] or 'it waits for a worker'}")
    if found["state"] != "done":
        fail(found["reason"])
