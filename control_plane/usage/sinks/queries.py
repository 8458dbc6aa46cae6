"""Sinks as they stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.usage.sinks.model import DeliveryState
from control_plane.usage.sinks.tables import Sink, SinkDay, SinkHour


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """How far a sink is. `oldest_waiting`: the first hour that waits; `records`: what was taken of each hour."""

    sink: Sink
    waiting_hours: int = 0
    failed_hours: int = 0
    sent_hours: int = 0
    records: int = 0
    oldest_waiting: datetime | None = None
    days_written: int = 0


def sink_statement(name: str) -> Select[Sink]:
    """Return the statement that selects a sink that was not removed."""
    return select(Sink).where(Sink.name == name, Sink.removed_at.is_(None))


async def sink_by_name(session: AsyncSession, name: str) -> Sink:
    """Return a sink.

    Raises:
        NotFoundError: there is none of that name.
    """
    sink = await session.scalar(sink_statement(name))
    if sink is None:
        raise NotFoundError("sink", name)
    return sink


async def sinks_with_progress(session: AsyncSession) -> list[SinkProgress]:
    """Return all sinks by name."""
    sinks = list(await session.scalars(select(Sink).where(Sink.removed_at.is_(None)).order_by(Sink.name)))
    hours = await session.execute(
        select(
            SinkHour.sink_id, SinkHour.state, func.count(), func.sum(SinkHour.records), func.min(SinkHour.hour)
        ).group_by(SinkHour.sink_id, SinkHour.state)
    )
    by_state = {(sink_id, state): (count, int(records), first) for sink_id, state, count, records, first in hours}
    days = await session.execute(
        select(SinkDay.sink_id, func.count(), func.sum(SinkDay.records)).group_by(SinkDay.sink_id)
    )
    by_day = {sink_id: (count, int(records)) for sink_id, count, records in days}
    return [_progress(sink, by_state, by_day.get(sink.id, (0, 0))) for sink in sinks]


async def failed_hours(session: AsyncSession, *, name: str, limit: int = 100) -> Sequence[SinkHour]:
    """Return hours that the sink will not take as they are, oldest first.

    Raises:
        NotFoundError: there is no such sink.
    """
    sink = await sink_by_name(session, name)
    statement = (
        select(SinkHour)
        .where(SinkHour.sink_id == sink.id, SinkHour.state == DeliveryState.FAILED.value)
        .order_by(SinkHour.hour, SinkHour.account_id)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def days_of(session: AsyncSession, *, name: str, limit: int = 100) -> Sequence[SinkDay]:
    """Return the newest files of a sink, the latest day first.

    Raises:
        NotFoundError: there is no such sink.
    """
    sink = await sink_by_name(session, name)
    statement = select(SinkDay).where(SinkDay.sink_id == sink.id).order_by(SinkDay.day.desc()).limit(limit)
    return (await session.scalars(statement)).all()


def _progress(
    sink: Sink, by_state: dict[tuple[str, str], tuple[int, int, datetime]], written: tuple[int, int]
) -> SinkProgress:
    none = (0, 0, None)
    waiting = by_state.get((sink.id, DeliveryState.WAITING.value), none)
    failed = by_state.get((sink.id, DeliveryState.FAILED.value), none)
    sent = by_state.get((sink.id, DeliveryState.SENT.value), none)
    days, records = written
    return SinkProgress(
        sink=sink,
        waiting_hours=waiting[0],
        failed_hours=failed[0],
        sent_hours=sent[0],
        records=waiting[1] + failed[1] + sent[1] + records,
        oldest_waiting=waiting[2],
        days_written=days,
    )
