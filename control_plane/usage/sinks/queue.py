"""Which sealed hours wait for which http sink, and who sends them. Each call is a transaction of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Update, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.usage.sinks.model import DeliveryState, SinkContent, SinkKind
from control_plane.usage.sinks.tables import Sink, SinkHour
from control_plane.usage.store.event_reads import Place

MAX_ERROR = 500
# Seals are looked for some time back: one may be committed later than another that was made after it.
OVERLAP = timedelta(hours=1)

_FILL = text("""
INSERT INTO sink_hours (sink_id, account_id, hour, revision)
SELECT sinks.id, sealed.account_id, sealed.hour, sealed.revision
FROM usage_hours AS sealed JOIN sinks ON sealed.hour >= sinks.since
LEFT JOIN sink_hours AS known
    ON known.sink_id = sinks.id AND known.account_id = sealed.account_id AND known.hour = sealed.hour
WHERE sinks.kind = 'http' AND sinks.removed_at IS NULL AND sealed.account_id <> ''
    AND sealed.sealed_at >= coalesce(CAST(:sealed_after AS timestamptz), '-infinity')
    AND (known.revision IS NULL OR known.revision < sealed.revision)
ORDER BY sinks.id, sealed.account_id, sealed.hour
ON CONFLICT (sink_id, account_id, hour) DO UPDATE
SET revision = excluded.revision, state = 'waiting', after_ms = 0, after_id = '', records = 0, leased_until = NULL,
    sent_at = NULL, error = NULL
WHERE sink_hours.revision < excluded.revision
""")
_CLAIM = text("""
UPDATE sink_hours AS taken SET leased_until = :leased_until
FROM (
    SELECT oldest.sink_id, oldest.account_id, oldest.hour
    FROM sinks CROSS JOIN LATERAL (
        SELECT waiting.sink_id, waiting.account_id, waiting.hour
        FROM sink_hours AS waiting
        WHERE waiting.sink_id = sinks.id AND waiting.state = 'waiting'
            AND (waiting.leased_until IS NULL OR waiting.leased_until <= :now)
        ORDER BY waiting.hour, waiting.account_id
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) AS oldest
    WHERE sinks.removed_at IS NULL AND sinks.paused_at IS NULL AND sinks.due_at <= :now
) AS free
WHERE taken.sink_id = free.sink_id AND taken.account_id = free.account_id AND taken.hour = free.hour
RETURNING taken.sink_id, taken.account_id, taken.hour, taken.revision, taken.after_ms, taken.after_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingHour:
    """An hour that was claimed, with its sink as it was then; `after` is where sending goes on."""

    sink_id: str
    sink_name: str
    url: str
    content: SinkContent
    account_id: str
    hour: datetime
    revision: int
    after: Place | None


class LostHourError(Exception):
    """The hour was sealed anew, or claimed by another: what was sent goes on there."""


class SinkQueue:
    """Hours that wait. Any number of processes may use it."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], *, lease: timedelta) -> None:
        self._sessions = sessions
        self._lease = lease

    async def fill(self, *, sealed_after: datetime | None) -> None:
        """Enter hours that were sealed since (None: ever), at their newest revision. Idempotent."""
        async with self._sessions() as session, session.begin():
            await session.execute(_FILL, {"sealed_after": sealed_after and sealed_after - OVERLAP})

    async def sinks(self) -> set[str]:
        """Return the ids of all http sinks that were not removed."""
        statement = select(Sink.id).where(Sink.kind == SinkKind.HTTP.value, Sink.removed_at.is_(None))
        async with self._sessions() as session:
            return set(await session.scalars(statement))

    async def claim(self, now: datetime, *, limit: int) -> list[WaitingHour]:
        """Take over up to `limit` hours of each sink, its oldest; they are free again when the lease is over."""
        async with self._sessions() as session, session.begin():
            rows = (
                await session.execute(_CLAIM, {"now": now, "leased_until": now + self._lease, "limit": limit})
            ).all()
            sinks = {sink_id: await session.get_one(Sink, sink_id) for sink_id in {row.sink_id for row in rows}}
        found = [
            WaitingHour(
                sink_id=row.sink_id,
                sink_name=sinks[row.sink_id].name,
                url=sinks[row.sink_id].url or "",
                content=SinkContent(sinks[row.sink_id].content),
                account_id=row.account_id,
                hour=row.hour,
                revision=row.revision,
                after=Place(row.after_ms, row.after_id, row.account_id) if row.after_id else None,
            )
            for row in rows
        ]
        return sorted(found, key=lambda hour: (hour.sink_id, hour.hour, hour.account_id))

    async def advance(self, hour: WaitingHour, *, after: Place, records: int, now: datetime) -> None:
        """Note what the other side has taken, and keep the lease.

        Raises:
            LostHourError: see there.
        """
        values = {
            "after_ms": after.occurred_at_ms,
            "after_id": after.event_id,
            "records": SinkHour.records + records,
            "leased_until": now + self._lease,
        }
        async with self._sessions() as session, session.begin():
            await self._change(session, hour, values)
            await _note_sent(session, hour.sink_id, now)

    async def finish(self, hour: WaitingHour, *, records: int, now: datetime) -> None:
        """The hour is sent, whole.

        Raises:
            LostHourError: see there.
        """
        values = {
            "state": DeliveryState.SENT.value,
            "records": SinkHour.records + records,
            "leased_until": None,
            "sent_at": now,
            "error": None,
        }
        async with self._sessions() as session, session.begin():
            await self._change(session, hour, values)
            await _note_sent(session, hour.sink_id, now)

    async def refuse(self, hour: WaitingHour, error: str, *, now: datetime) -> None:
        """The other side will not take this hour as it is; the others go on."""
        values = {"state": DeliveryState.FAILED.value, "leased_until": None, "error": error[:MAX_ERROR]}
        async with self._sessions() as session, session.begin():
            await self._change(session, hour, values)
            await session.execute(
                update(Sink)
                .where(Sink.id == hour.sink_id)
                .values(last_error=error[:MAX_ERROR], last_error_at=now)
                .execution_options(synchronize_session=False)
            )

    async def give_back(self, hours: Sequence[WaitingHour]) -> None:
        """Let others have hours at once; those that are no longer ours are left alone."""
        async with self._sessions() as session, session.begin():
            for hour in hours:
                await session.execute(_of(hour).values(leased_until=None))

    async def put_off(self, sink_id: str, error: str, *, until: datetime, now: datetime) -> None:
        """The sink takes nothing at the moment: one failure more in a row."""
        async with self._sessions() as session, session.begin():
            await session.execute(
                update(Sink)
                .where(Sink.id == sink_id)
                .values(attempts=Sink.attempts + 1, due_at=until, last_error=error[:MAX_ERROR], last_error_at=now)
                .execution_options(synchronize_session=False)
            )

    async def attempts(self, sink_id: str) -> int:
        """Return how many failures in a row the sink has had."""
        async with self._sessions() as session:
            return (await session.get_one(Sink, sink_id)).attempts

    async def _change(self, session: AsyncSession, hour: WaitingHour, values: Mapping[str, object]) -> None:
        changed = await session.execute(_of(hour).values(**values).returning(SinkHour.hour))
        if changed.one_or_none() is None:
            raise LostHourError(f"{hour.account_id} {hour.hour.isoformat()}")


def _of(hour: WaitingHour) -> Update:
    return (
        update(SinkHour)
        .where(
            SinkHour.sink_id == hour.sink_id,
            SinkHour.account_id == hour.account_id,
            SinkHour.hour == hour.hour,
            SinkHour.revision == hour.revision,
            SinkHour.state == DeliveryState.WAITING.value,
            SinkHour.leased_until.is_not(None),
        )
        .execution_options(synchronize_session=False)
    )


async def _note_sent(session: AsyncSession, sink_id: str, now: datetime) -> None:
    await session.execute(
        update(Sink)
        .where(Sink.id == sink_id)
        .values(attempts=0, last_sent_at=now, last_error=None, last_error_at=None)
        .execution_options(synchronize_session=False)
    )
