"""`km usage dead-letters`."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(
    no_args_is_help=True, help="Lines that could not become events: list, show, replay and dismiss them."
)
COLUMNS = ("id", "received_at", "state", "shipper_id", "segment", "first_reason", "result")
FIELDS = (
    "id",
    "received_at",
    "shipper_id",
    "segment",
    "start_offset",
    "number",
    "first_reason",
    "state",
    "attempts",
    "result",
    "account_id",
    "event_id",
    "reason",
    "author",
    "handled_at",
    "text",
)
AT_ONCE = 200
EVERYTHING = 10**9
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which; or --all.")]
All = Annotated[bool, typer.Option("--all", help="All open ones, those of --matching.")]
Matching = Annotated[str | None, typer.Option(metavar="TEXT", help="Only those with this in their reason.")]
Shipper = Annotated[str | None, typer.Option(metavar="ID", help="Only those of one shipper.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept.")]


@app.command("list")
def list_letters(
    *,
    state: Annotated[str | None, typer.Option(help="Only open, replayed or dismissed ones.")] = "open",
    matching: Matching = None,
    shipper: Shipper = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List lines that were set aside, newest first; the open ones unless --state says otherwise ('' for all)."""
    found = pages("/dead-letters", at_most=at_most, state=state or None, reason=matching, shipper_id=shipper)
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(letter: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False) -> None:
    """Show a line that was set aside, and what was done about it."""
    print_fields(get(f"/dead-letters/{letter}"), FIELDS, as_json=as_json)


@app.command("replay")
def replay(
    letters: Ids = None,
    *,
    reason: Why,
    every: All = False,
    matching: Matching = None,
    shipper: Shipper = None,
    as_json: AsJson = False,
) -> None:
    """Put lines through the collector's path again: those that are events by now are counted."""
    _handle("replay", _chosen(letters, every=every, matching=matching, shipper=shipper), reason, as_json=as_json)


@app.command("dismiss")
def dismiss(
    letters: Ids = None,
    *,
    reason: Why,
    every: All = False,
    matching: Matching = None,
    shipper: Shipper = None,
    as_json: AsJson = False,
) -> None:
    """Say that nothing is to be done about lines."""
    _handle("dismiss", _chosen(letters, every=every, matching=matching, shipper=shipper), reason, as_json=as_json)


def _chosen(letters: list[str] | None, *, every: bool, matching: str | None, shipper: str | None) -> Iterator[str]:
    if bool(letters) is every:
        raise typer.BadParameter("give ids, or --all")
    if letters:
        if matching or shipper:
            raise typer.BadParameter("--matching and --shipper go with --all")
        return iter(letters)
    found = pages("/dead-letters", at_most=EVERYTHING, state="open", reason=matching, shipper_id=shipper)
    # all of them before anything is done: what is done changes the list
    return iter([letter["id"] for letter in found])


def _handle(what: str, letters: Iterator[str], reason: str, *, as_json: bool) -> None:
    done: list[dict[str, Any]] = []
    while some := list(islice(letters, AT_ONCE)):
        done += post(f"/dead-letters/{what}", {"letter_ids": some, "reason": reason})["items"]
    if as_json:
        print_json(done)
    else:
        print_rows(done, ("id", "state", "account_id", "event_id", "result"))
    left = sum(letter["state"] == "open" for letter in done)
    if left:
        fail(f"{left} of {len(done)} {'is' if left == 1 else 'are'} still open")
