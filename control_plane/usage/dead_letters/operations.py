"""What people do about dead letters: replay and dismiss. Nothing here commits."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import to_ms
from control_plane.foundation.errors import NotFoundError
from control_plane.usage import metrics
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.enrichment import KeptDays, enrichment_columns
from control_plane.usage.collect.positions import note_replays, touch
from control_plane.usage.dead_letters.model import Handling, Letter, LetterState
from control_plane.usage.dead_letters.queries import handling_of
from control_plane.usage.dead_letters.replaying import Outcome, read_letter
from control_plane.usage.dead_letters.tables import HandledLetter
from control_plane.usage.store import EventStore, UnstorableRowError
from control_plane.usage.store.dead_letters import StoredLetter, letters_by_id


async def replay_letters(
    session: AsyncSession,
    store: EventStore,
    *,
    letter_ids: Collection[str],
    attribution: Attribution,
    kept: KeptDays,
    reason: str,
    actor: str,
    now: datetime,
) -> list[Letter]:
    """Put letters through the collector's path again: those that are events by now are stored and counted.

    A letter that is still bad stays open, with the new reason. One that was replayed before is left as it is. All
    of it can be done twice: an event counts once whoever brings it, and it is stored before its hour is touched.

    Raises:
        NotFoundError: one of them is not there; then nothing is done.
        clickhouse_connect.driver.exceptions.Error: the store failed; to be called again.
    """
    stored, rows = await _lock(session, store, letter_ids, now)
    waiting = [letter for letter in stored if rows[letter.id].state != LetterState.REPLAYED]
    outcomes = await asyncio.to_thread(_store, store, waiting, attribution, kept, to_ms(now))
    for outcome in outcomes:
        await note_replays(session, hours=outcome.events.replay_hours)
        await _note(
            session,
            rows[outcome.letter.id],
            Handling(
                state=LetterState.OPEN if outcome.problem else LetterState.REPLAYED,
                result=outcome.problem,
                account_id=outcome.account_id,
                event_id=outcome.event_id,
                reason=reason,
                author=actor,
            ),
            action="dead_letter.replay_failed" if outcome.problem else "dead_letter.replayed",
            now=now,
        )
        metrics.LETTERS_HANDLED.labels("replay_failed" if outcome.problem else "replayed").inc()
    await touch(session, hours={hour for outcome in outcomes for hour in outcome.events.hours}, now=now)
    return [Letter(letter, handling_of(rows[letter.id])) for letter in stored]


async def dismiss_letters(
    session: AsyncSession,
    store: EventStore,
    *,
    letter_ids: Collection[str],
    reason: str,
    actor: str,
    now: datetime,
) -> list[Letter]:
    """Say that nothing is to be done about letters. Idempotent; a replayed one stays as it is.

    A dismissed letter can be replayed all the same.

    Raises:
        NotFoundError: one of them is not there; then nothing is done.
    """
    stored, rows = await _lock(session, store, letter_ids, now)
    for letter in stored:
        row = rows[letter.id]
        if row.state != LetterState.OPEN:
            continue
        dismissed = replace(handling_of(row), state=LetterState.DISMISSED, reason=reason, author=actor)
        await _note(session, row, dismissed, action="dead_letter.dismissed", now=now)
        metrics.LETTERS_HANDLED.labels("dismissed").inc()
    return [Letter(letter, handling_of(rows[letter.id])) for letter in stored]


async def _lock(
    session: AsyncSession, store: EventStore, letter_ids: Collection[str], now: datetime
) -> tuple[list[StoredLetter], dict[str, HandledLetter]]:
    """Return the letters with their rows, locked in one order: what is done at once to one is done in turn."""
    ids = sorted(set(letter_ids))
    found = await asyncio.to_thread(letters_by_id, store, ids)
    for letter_id in ids:
        if letter_id not in found:
            raise NotFoundError("dead_letter", letter_id)
    nothing = {"attempts": 0, "result": "", "account_id": "", "event_id": "", "reason": "", "author": ""}
    new = [{"id": letter_id, "state": LetterState.OPEN, **nothing, "handled_at": now} for letter_id in ids]
    await session.execute(insert(HandledLetter).values(new).on_conflict_do_nothing())
    rows = await session.scalars(
        select(HandledLetter)
        .where(HandledLetter.id.in_(ids))
        .order_by(HandledLetter.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return [found[letter_id] for letter_id in ids], {row.id: row for row in rows}


def _store(
    store: EventStore, letters: Sequence[StoredLetter], attribution: Attribution, kept: KeptDays, now_ms: int
) -> list[Outcome]:
    outcomes = [_with_retention(read_letter(letter, attribution, now_ms=now_ms), kept) for letter in letters]
    together = EventColumns()
    for outcome in outcomes:
        together.extend(outcome.events)
    try:
        store.insert(together)
    except UnstorableRowError:
        return [_insert(store, outcome) for outcome in outcomes]
    return outcomes


def _insert(store: EventStore, outcome: Outcome) -> Outcome:
    try:
        store.insert(outcome.events)
    except UnstorableRowError as error:
        return Outcome(outcome.letter, EventColumns(), f"unstorable: {error}")
    return outcome


def _with_retention(outcome: Outcome, kept: KeptDays) -> Outcome:
    """Have an event kept as long as any plan promises: which one it was is not looked up here."""
    columns = outcome.events.columns
    if columns:
        columns |= enrichment_columns(columns["account_id"], columns["product"], {}, kept)
    return outcome


async def _note(session: AsyncSession, row: HandledLetter, done: Handling, *, action: str, now: datetime) -> None:
    before = {"state": row.state, "attempts": row.attempts, "result": row.result}
    if action != "dead_letter.dismissed":
        row.attempts += 1
    row.state, row.result, row.account_id, row.event_id = done.state, done.result, done.account_id, done.event_id
    row.reason, row.author, row.handled_at = done.reason, done.author, now
    after = {"state": row.state, "attempts": row.attempts, "result": row.result, "reason": row.reason}
    if row.event_id:
        after |= {"account_id": row.account_id, "event_id": row.event_id}
    await record_change(
        session,
        actor=done.author,
        action=action,
        entity_type="dead_letter",
        entity_id=row.id,
        before=before,
        after=after,
        now=now,
    )
