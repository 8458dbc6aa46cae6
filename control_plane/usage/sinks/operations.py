"""What people do to sinks. Nothing here commits."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.usage.daily.rows import hours_kept_from
from control_plane.usage.retention import countable_from_ms
from control_plane.usage.sinks.model import DeliveryState, SinkContent, SinkFacts, SinkKind
from control_plane.usage.sinks.queries import sink_statement
from control_plane.usage.sinks.tables import Sink, SinkHour


class SinkNameTakenError(ConflictError):
    """Another sink has this name."""

    def __init__(self, name: str) -> None:
        super().__init__("sink_name_taken", f"There is a sink {name} already.")


async def create_sink(session: AsyncSession, *, sink: SinkFacts, actor: str, now: datetime) -> Sink:
    """Make a sink: hours from `since` on are sent as soon as they are sealed, those sealed already at once.

    Raises:
        SinkNameTakenError: see there.
        ValidationFailedError: field `since`: what is asked for may no longer be kept.
    """
    kept_from: datetime | None = from_ms(countable_from_ms(now))
    if sink.content is SinkContent.ROLLUPS:
        kept_from = await hours_kept_from(session)
    if kept_from is not None and sink.since < kept_from:
        raise ValidationFailedError(
            "since", f"must not be before {kept_from.isoformat()}: what is older may be gone"
        )
    row = Sink(
        id=new_id("sink", now),
        name=sink.name,
        kind=sink.kind.value,
        content=sink.content.value,
        url=sink.url,
        file_format=sink.file_format and sink.file_format.value,
        since=sink.since,
        created_at=now,
        due_at=now,
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise SinkNameTakenError(sink.name) from error
    await _record(session, row, "sink.created", before=None, after=sink.as_dict(), actor=actor, now=now)
    return row


async def pause_sink(session: AsyncSession, *, name: str, actor: str, now: datetime) -> Sink:
    """Send nothing more until it is resumed; hours go on being kept for it. Idempotent."""
    sink = await locked_sink(session, name)
    if sink.paused_at is None:
        sink.paused_at = now
        after = {"paused_at": now.isoformat()}
        await _record(session, sink, "sink.paused", before={"paused_at": None}, after=after, actor=actor, now=now)
    return sink


async def resume_sink(session: AsyncSession, *, name: str, actor: str, now: datetime) -> Sink:
    """Go on where the sink was, at once, also where it is put off after failures. Idempotent."""
    sink = await locked_sink(session, name)
    if sink.paused_at is not None:
        before = {"paused_at": sink.paused_at.isoformat()}
        await _record(
            session, sink, "sink.resumed", before=before, after={"paused_at": None}, actor=actor, now=now
        )
    sink.paused_at, sink.due_at, sink.attempts = None, now, 0
    return sink


async def remove_sink(session: AsyncSession, *, name: str, actor: str, now: datetime) -> Sink:
    """End a sink for good; its name is free again. Files that it wrote stay."""
    sink = await locked_sink(session, name)
    sink.removed_at = now
    await _record(session, sink, "sink.removed", before={"name": name}, after=None, actor=actor, now=now)
    return sink


async def resend_hours(
    session: AsyncSession,
    *,
    name: str,
    states: Collection[DeliveryState],
    start: datetime | None = None,
    end: datetime | None = None,
    actor: str,
    now: datetime,
) -> int:
    """Have hours in [start, end) that stand in one of `states` sent again, whole; returns how many.

    Raises:
        NotFoundError: there is no such sink.
        ValidationFailedError: it is a sink of files, whose days are written anew by themselves.
    """
    sink = await locked_sink(session, name)
    if sink.kind != SinkKind.HTTP:
        raise ValidationFailedError("name", "is a sink of files: nothing waits for it")
    conditions = [SinkHour.sink_id == sink.id, SinkHour.state.in_([state.value for state in states])]
    conditions += [SinkHour.hour >= start] if start is not None else []
    conditions += [SinkHour.hour < end] if end is not None else []
    again = {"state": "waiting", "after_ms": 0, "after_id": "", "records": 0, "leased_until": None, "error": None}
    rows = await session.execute(
        update(SinkHour)
        .where(*conditions)
        .values(**again, sent_at=None)
        .returning(SinkHour.hour)
        .execution_options(synchronize_session=False)
    )
    count = len(rows.all())
    after = {
        "hours": count,
        "states": sorted(states),
        "start": start and start.isoformat(),
        "end": end and end.isoformat(),
    }
    await _record(session, sink, "sink.resent", before=None, after=after, actor=actor, now=now)
    return count


async def locked_sink(session: AsyncSession, name: str) -> Sink:
    """Return a sink under its row lock.

    Raises:
        NotFoundError: there is none of that name.
    """
    sink = await session.scalar(sink_statement(name).with_for_update())
    if sink is None:
        raise NotFoundError("sink", name)
    return sink


async def _record(
    session: AsyncSession,
    sink: Sink,
    action: str,
    *,
    before: Mapping[str, object] | None,
    after: Mapping[str, object] | None,
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="sink",
        entity_id=sink.id,
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
        now=now,
    )
