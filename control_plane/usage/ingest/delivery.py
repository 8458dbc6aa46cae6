"""From accepted batches to the event store: store the events, then raise their hours' marks and drop the batch.

Whoever does this a second time (after a crash, or because two processes hold the same batch) stores the very same
rows, which count once, and has the hours looked at once more.
"""

import asyncio
from datetime import datetime

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.positions import touch
from control_plane.usage.ingest import metrics, payload
from control_plane.usage.ingest.claims import delete_batch
from control_plane.usage.ingest.tables import IngestBatch
from control_plane.usage.store import EventStore, UnstorableRowError

MAX_AT_ONCE = 1_000

log = structlog.get_logger(__name__)


async def deliver(
    sessions: async_sessionmaker[AsyncSession], store: EventStore, batch_id: str, *, now: datetime
) -> None:
    """Bring one batch into the store, unless it is there already. Idempotent; every failure comes out."""
    async with sessions() as session:
        found = await session.scalar(select(IngestBatch.payload).where(IngestBatch.id == batch_id))
    if found is None:
        return
    events = await asyncio.to_thread(payload.decode, found)
    unstorable = await asyncio.to_thread(_store, store, events)
    async with sessions() as session, session.begin():
        await touch(session, hours=events.hours, now=now)
        if unstorable:
            await session.execute(update(IngestBatch).where(IngestBatch.id == batch_id).values(spoiled_at=now))
        else:
            await delete_batch(session, batch_id)
    if unstorable:
        metrics.UNSTORABLE.inc(len(unstorable))
        log.error("accepted events fit no column; their batch is kept", batch=batch_id, events=unstorable[:10])
    metrics.STORED.inc(len(events) - len(unstorable))


async def undelivered(sessions: async_sessionmaker[AsyncSession], *, accepted_before: datetime) -> list[str]:
    """Return batches accepted before a moment that nobody has brought into the store, oldest first."""
    async with sessions() as session:
        metrics.SPOILED.set(
            await session.scalar(select(func.count()).where(IngestBatch.spoiled_at.is_not(None))) or 0
        )
        rows = await session.scalars(
            select(IngestBatch.id)
            .where(IngestBatch.spoiled_at.is_(None), IngestBatch.accepted_at < accepted_before)
            .order_by(IngestBatch.accepted_at, IngestBatch.id)
            .limit(MAX_AT_ONCE)
        )
        return list(rows)


def _store(store: EventStore, events: EventColumns) -> list[str]:
    """Store what can be stored and return the ids of the others: one row must not hold up the rest."""
    try:
        store.insert(events)
    except UnstorableRowError:
        if len(events) == 1:
            return [events.columns["event_id"][0]]
        middle = len(events) // 2
        return _store(store, events.slice(0, middle)) + _store(store, events.slice(middle, len(events)))
    return []
