"""Which dead letters there are, and what became of them."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, encode_cursor
from control_plane.usage.dead_letters.model import UNTOUCHED, Handling, Letter, LetterState
from control_plane.usage.dead_letters.tables import HandledLetter
from control_plane.usage.store import EventStore
from control_plane.usage.store.dead_letters import letters_by_id, letters_page

# letters that one page may look at for some of the wanted state
SCANNED = 5_000
_SCANNED_AT_ONCE = 1_000


async def list_letters(
    session: AsyncSession,
    store: EventStore,
    *,
    state: LetterState | None = None,
    reason: str = "",
    shipper_id: str = "",
    cursor: str | None = None,
    limit: int,
) -> Page[Letter]:
    """Return a page of letters, newest first: of one state, with a part of the reason, of one shipper.

    Where few letters are of the wanted state a page may hold fewer than `limit` and have a cursor all the same.

    Raises:
        ValidationFailedError: the cursor is not one of ours.
    """
    before = cast("tuple[datetime, str] | None", decode_cursor(cursor, datetime, str) if cursor else None)
    found: list[Letter] = []
    at_once = limit + 1 if state is None else _SCANNED_AT_ONCE
    for _ in range(max(1, SCANNED // at_once)):
        scanned = await asyncio.to_thread(
            letters_page, store, limit=at_once, before=before, reason=reason, shipper_id=shipper_id
        )
        handled = await handlings(session, [letter.id for letter in scanned])
        for letter in scanned:
            handling = handled.get(letter.id, UNTOUCHED)
            if state is None or handling.state is state:
                found.append(Letter(letter, handling))
        if len(found) > limit:
            last = found[limit - 1].stored
            return Page(tuple(found[:limit]), encode_cursor(last.received_at, last.id))
        if len(scanned) < at_once:
            return Page(tuple(found), None)
        before = (scanned[-1].received_at, scanned[-1].id)
    return Page(tuple(found), encode_cursor(*before) if before else None)


async def find_letter(session: AsyncSession, store: EventStore, *, letter_id: str) -> Letter:
    """Return one letter.

    Raises:
        NotFoundError: no such letter, or it is no longer kept.
    """
    stored = (await asyncio.to_thread(letters_by_id, store, [letter_id])).get(letter_id)
    if stored is None:
        raise NotFoundError("dead_letter", letter_id)
    return Letter(stored, (await handlings(session, [letter_id])).get(letter_id, UNTOUCHED))


async def handlings(session: AsyncSession, letter_ids: Collection[str]) -> dict[str, Handling]:
    """Return what was done about these letters, without those that nobody did anything about."""
    if not letter_ids:
        return {}
    rows = await session.scalars(select(HandledLetter).where(HandledLetter.id.in_(letter_ids)))
    return {row.id: handling_of(row) for row in rows}


def handling_of(row: HandledLetter) -> Handling:
    """Return the row as a value."""
    return Handling(
        state=LetterState(row.state),
        attempts=row.attempts,
        result=row.result,
        account_id=row.account_id,
        event_id=row.event_id,
        reason=row.reason,
        author=row.author,
        handled_at=row.handled_at,
    )
