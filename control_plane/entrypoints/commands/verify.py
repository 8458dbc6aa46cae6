"""`km verify`: receipts that an API developer has saved from answers, against what usage was sealed with."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, pages, post
from control_plane.foundation.clock import floor_hour, from_ms
from control_plane.usage.digests.verify import (
    Evidence,
    EvidenceError,
    ReceiptFileError,
    SavedReceipt,
    TrustedDigest,
    Verdict,
    read_receipts,
)
from control_plane.usage.digests.verify import verify as verify_receipts

EVENTS_AT_ONCE = 500
HOURS_AT_ONCE = 48
MOST_LINES = 20
MOST_LINKS = 1_000_000


def verify(
    receipts: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            allow_dash=True,
            help="X-Km-Receipt headers, one a line, or JSON lines with `receipt` and `status`; - is stdin.",
        ),
    ],
    *,
    trusted: Annotated[
        str | None,
        typer.Option(metavar="NUMBER:DIGEST", help="A digest that an earlier run has shown: still the same?"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write what the server says to this file, to be checked elsewhere.")
    ] = None,
    saved: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="Check against such a file; asks no server."),
    ] = None,
) -> None:
    """Check receipts that your client saved against what usage was sealed with.

    Exit code 1: a receipt is not in usage, something differs, or the chain of digests is broken.
    """
    try:
        text = (
            typer.get_text_stream("stdin").read() if str(receipts) == "-" else receipts.read_text(encoding="utf-8")
        )
        kept = read_receipts(text.splitlines())
        anchor = _anchor(trusted)
        evidence = Evidence.from_json(saved.read_text(encoding="utf-8")) if saved else _ask(kept, anchor)
    except ReceiptFileError as error:
        fail(f"{receipts}: {error}")
    except EvidenceError as error:
        fail(f"--from: {saved}: {error}")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{receipts}: {error}")
    if save is not None:
        save.write_text(evidence.as_json(), encoding="utf-8")
    try:
        verdict = verify_receipts(kept, evidence, trusted=anchor)
    except (KeyError, TypeError, ValueError, OverflowError):
        fail("what the server said, or the file holds, has another form than it should")
    for line in _lines(kept, verdict):
        typer.echo(line)
    if not verdict.is_sound:
        raise typer.Exit(1)


def _anchor(text: str | None) -> TrustedDigest | None:
    if text is None:
        return None
    number, _, digest = text.partition(":")
    if not number.isdigit() or len(digest) != len("0" * 64):
        raise typer.BadParameter("must be a number, a colon and 64 hex digits", param_hint="--trusted")
    return TrustedDigest(int(number), digest)


def _ask(kept: Sequence[SavedReceipt], anchor: TrustedDigest | None) -> Evidence:
    accounts = {saved.receipt.account_id for saved in kept}
    if not accounts:
        fail("there is no receipt in the file")
    if len(accounts) > 1:
        fail(f"the receipts are of {len(accounts)} accounts: check each apart")
    (account_id,) = accounts
    proofs: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for part in _parts(kept):
        body = {"account_id": account_id, "receipts": [saved.text for saved in part]}
        answer = post("/usage/digests/proofs", body)
        proofs |= {proof["event_id"]: proof for proof in answer["items"]}
        absent |= {absence["event_id"]: absence["reason"] for absence in answer["absent"]}
    return Evidence(_chain(account_id, kept, anchor), proofs, absent)


def _parts(kept: Iterable[SavedReceipt]) -> Iterator[list[SavedReceipt]]:
    """Yield receipts in the order of time, as many at once as the server takes."""
    part: list[SavedReceipt] = []
    hours: set[Any] = set()
    for saved in sorted(kept, key=lambda one: one.receipt.decided_at_ms):
        hour = floor_hour(from_ms(saved.receipt.decided_at_ms))
        if part and (len(part) == EVENTS_AT_ONCE or (hour not in hours and len(hours) == HOURS_AT_ONCE)):
            yield part
            part, hours = [], set()
        part.append(saved)
        hours.add(hour)
    if part:
        yield part


def _chain(account_id: str, kept: Sequence[SavedReceipt], anchor: TrustedDigest | None) -> list[dict[str, Any]]:
    """Return the links of the chain from the first to the last that any receipt's hour has, without gaps."""
    moments = [saved.receipt.decided_at_ms for saved in kept]
    start, end = floor_hour(from_ms(min(moments))), floor_hour(from_ms(max(moments))) + timedelta(hours=1)
    numbers = [anchor.sequence] if anchor else []
    while start < end:
        until = min(end, start + timedelta(days=400))
        links = _pages(account_id, start=start.isoformat(), end=until.isoformat())
        numbers += [link["sequence"] for link in links]
        start = until
    return list(_pages(account_id, first=min(numbers), last=max(numbers))) if numbers else []


def _pages(account_id: str, **params: Any) -> Iterator[dict[str, Any]]:
    return pages("/usage/digests", at_most=MOST_LINKS, account_id=account_id, **params)


def _lines(kept: Sequence[SavedReceipt], verdict: Verdict) -> Iterator[str]:
    moments = [saved.receipt.decided_at_ms for saved in kept]
    if moments:
        first, last = (from_ms(at_ms).isoformat(timespec="seconds") for at_ms in (min(moments), max(moments)))
        yield f"{len(kept):,} receipts, {first} to {last}"
    yield f"  {verdict.verified:,} verified: in usage as the receipt says, under a sealed root"
    if verdict.voided:
        yield f"  {verdict.voided:,} of these were voided: they count nothing"
    if verdict.pending:
        yield f"  {verdict.pending:,} of hours that are not sealed yet: check them later"
    if verdict.reopened:
        yield f"  {verdict.reopened:,} of these were sealed before, and are said to be open again"
    yield f"  {verdict.events_without_receipt:,} events in these hours without a receipt of yours"
    for title, lines in (
        ("not in usage, though their hours are sealed", verdict.missing),
        ("differ", verdict.wrong),
        ("faults in the chain of digests", verdict.chain),
    ):
        if lines:
            yield f"  {len(lines):,} {title}:"
            yield from (f"    {line}" for line in lines[:MOST_LINES])
            if len(lines) > MOST_LINES:
                yield f"    and {len(lines) - MOST_LINES:,} more"
    if verdict.digests:
        yield f"{verdict.digests:,} digests chained; the last is {verdict.last_sequence}:{verdict.last_digest}"
        yield "Keep that line: --trusted holds a later run to it."
    yield "verified" if verdict.is_sound else "NOT verified"
