"""Reads lines that were set aside. Blocking: the caller runs it in a thread."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.usage.store.events import EventStore

_PAGE = (resources.files("control_plane.usage.store") / "dead_letters.sql").read_text(encoding="utf-8")
# behind every letter that there can be
END_OF_TIME_MS = 4_102_444_800_000
MAX_REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A line that was set aside, with the place it came from and why. `text` is redacted, and cut at 16,384."""

    id: str
    shipper_id: str
    segment: str
    start_offset: int
    number: int
    reason: str
    text: str
    received_at: datetime


def letters_page(
    store: EventStore,
    *,
    limit: int,
    before: tuple[datetime, str] | None = None,
    reason: str = "",
    shipper_id: str = "",
) -> list[StoredLetter]:
    """Return up to `limit` letters, newest first, behind the one of `before` (received at, id).

    `reason` is a part of it, in whatever case.
    """
    return _letters(store, limit=limit, before=before, reason=reason, shipper_id=shipper_id)


def letters_by_id(store: EventStore, ids: Collection[str]) -> dict[str, StoredLetter]:
    """Return the letters that there are of these."""
    if not ids:
        return {}
    return {letter.id: letter for letter in _letters(store, ids=ids, limit=len(ids))}


def _letters(
    store: EventStore,
    *,
    limit: int,
    ids: Collection[str] = (),
    before: tuple[datetime, str] | None = None,
    reason: str = "",
    shipper_id: str = "",
) -> list[StoredLetter]:
    rows = store.query(
        _PAGE,
        {
            "ids": list(ids),
            "before_ms": to_ms(before[0]) if before else END_OF_TIME_MS,
            "before_id": before[1] if before else "",
            "reason": reason,
            "shipper_id": shipper_id,
            "page_size": limit,
        },
    )
    return [_letter(row) for row in rows]


def _letter(row: Sequence[Any]) -> StoredLetter:
    letter_id, shipper_id, segment, start_offset, number, reason, text, received_at_ms = row
    return StoredLetter(
        letter_id, shipper_id, segment, start_offset, number, reason, text, from_ms(received_at_ms)
    )
