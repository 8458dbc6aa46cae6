"""Accepting events in PostgreSQL: each id once, and the events themselves until the event store has them.

Who accepts an id decides for good where and as what it counts. The ids and the events are committed together, so
nothing is half accepted: a process that dies before the commit has accepted nothing, and after it somebody else
brings the very same events into the store (`delivery`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.ids import new_id
from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.ingest import payload
from control_plane.usage.ingest.directory import read_directory
from control_plane.usage.ingest.model import (
    ACCEPTED,
    DUPLICATE,
    Code,
    Outcome,
    PlacedEvent,
    ReportedEvent,
    Verdict,
)
from control_plane.usage.ingest.placing import place
from control_plane.usage.ingest.tables import IngestBatch, IngestedId
from control_plane.usage.retention import MINIMUM_DAYS

# Sorted, so that two processes that are sent the same ids wait for each other instead of dying. Who waits sees
# the other's rows afterwards, or takes their place if they were rolled back.
_CLAIM = text("""
INSERT INTO ingested_ids (event_id, account_id, hour, content_hash, first_seen_at)
SELECT event_id, account_id, hour, content_hash, :now
FROM unnest(
    CAST(:ids AS text[]), CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]), CAST(:hashes AS bytea[])
) AS claimed (event_id, account_id, hour, content_hash)
ORDER BY event_id
ON CONFLICT DO NOTHING
RETURNING event_id
""")
_FORGET = text("""
DELETE FROM ingested_ids WHERE event_id IN (
    SELECT event_id FROM ingested_ids WHERE first_seen_at < :before LIMIT :limit FOR UPDATE SKIP LOCKED)
""")


class LostClaimError(Exception):
    """An id was there while it was claimed, and gone a moment later: it was forgotten just now. Try again."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The verdict on each event, in order, and the batch that holds the accepted ones ('' for none)."""

    verdicts: list[Verdict] = field(default_factory=list)
    batch_id: str = ""
    accepted: int = 0


async def claim(
    session: AsyncSession,
    events: Sequence[ReportedEvent],
    *,
    endpoints: EndpointNames,
    default_days: int = MINIMUM_DAYS,
    now: datetime,
) -> Claimed:
    """Accept what is new and can be placed; events sent twice in one go are judged in their order.

    Nothing is accepted before the session is committed. `default_days`: see `payload.encode`.
    """
    known = await _known(session, list({event.event_id for event in events}))
    directory = await read_directory(session, {event.subject for event in events if event.event_id not in known})
    placed: dict[str, PlacedEvent] = {}
    refused: dict[int, Verdict] = {}
    for number, event in enumerate(events):
        # a known id is judged by what it is known for, even if its account is gone or its time has become too old;
        # one that could not be placed is not known: somebody else may send it as it should be
        if event.event_id not in known and event.event_id not in placed:
            found = place(event, directory, now=now)
            if isinstance(found, Verdict):
                refused[number] = found
            else:
                placed[event.event_id] = found
    new = await _claim(session, placed, now)
    known |= await _known(session, [event_id for event_id in placed if event_id not in new])
    accepted = [found for event_id, found in placed.items() if event_id in new]
    batch_id = await _keep(session, accepted, endpoints, default_days, now) if accepted else ""
    verdicts = []
    for number, event in enumerate(events):
        if number in refused:
            verdicts.append(refused[number])
        elif event.event_id in known:
            verdicts.append(_verdict_on_known(event, known[event.event_id]))
        elif event.event_id in new:
            verdicts.append(ACCEPTED)
            known[event.event_id] = _Known.of(placed[event.event_id])
        else:
            raise LostClaimError(event.event_id)
    return Claimed(verdicts, batch_id, len(new))


@dataclass(frozen=True, slots=True)
class _Known:
    account_id: str
    hour: datetime
    content_hash: bytes

    @classmethod
    def of(cls, placed: PlacedEvent) -> "_Known":
        hour = payload.hour_of(placed)
        return cls(hour.account_id, from_ms(hour.hour_ms), placed.event.content_hash)


async def _known(session: AsyncSession, event_ids: Sequence[str]) -> dict[str, _Known]:
    if not event_ids:
        return {}
    rows = await session.execute(
        select(IngestedId.event_id, IngestedId.account_id, IngestedId.hour, IngestedId.content_hash).where(
            is_any_of(IngestedId.event_id, event_ids)
        )
    )
    return {row.event_id: _Known(row.account_id, row.hour, row.content_hash) for row in rows}


async def _claim(session: AsyncSession, placed: Mapping[str, PlacedEvent], now: datetime) -> set[str]:
    if not placed:
        return set()
    wanted = [(event_id, _Known.of(found)) for event_id, found in placed.items()]
    rows = await session.scalars(
        _CLAIM,
        {
            "ids": [event_id for event_id, _ in wanted],
            "accounts": [claimed.account_id for _, claimed in wanted],
            "hours": [claimed.hour for _, claimed in wanted],
            "hashes": [claimed.content_hash for _, claimed in wanted],
            "now": now,
        },
    )
    return set(rows)


async def _keep(
    session: AsyncSession,
    events: Sequence[PlacedEvent],
    endpoints: EndpointNames,
    default_days: int,
    now: datetime,
) -> str:
    batch = IngestBatch(
        id=new_id("ing", now),
        payload=payload.encode(events, endpoints=endpoints, default_days=default_days, ingested_at_ms=to_ms(now)),
        events=len(events),
        accepted_at=now,
    )
    session.add(batch)
    await session.flush()
    return batch.id


def _verdict_on_known(event: ReportedEvent, known: _Known) -> Verdict:
    if event.content_hash == known.content_hash:
        return DUPLICATE
    return Verdict(
        Outcome.CONFLICT,
        Code.CONFLICT,
        "An event with this source and id is known with other content, "
        f"for account {known.account_id} in the hour of {known.hour:%Y-%m-%dT%H:%MZ}; it stays as it is.",
    )


async def forget_old_ids(session: AsyncSession, *, before: datetime, limit: int = 10_000) -> int:
    """Delete ids that were first seen before a moment, at most `limit`, and return how many."""
    done = await session.execute(_FORGET, {"before": before, "limit": limit})
    return int(done.rowcount)  # type: ignore[attr-defined]


async def delete_batch(session: AsyncSession, batch_id: str) -> None:
    """Delete a batch that is in the store. Deleting it twice changes nothing."""
    await session.execute(delete(IngestBatch).where(IngestBatch.id == batch_id))
