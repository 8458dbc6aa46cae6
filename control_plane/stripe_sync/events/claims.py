"""Events in the hands of a worker: which objects are due, taking their events, and saying what came of it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.model import State, pause_after
from control_plane.stripe_sync.events.tables import StripeEvent

# how long the events of a worker that died lie still at least
SHORTEST_CLAIM = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object at Stripe that events are waiting for."""

    kind: Kind
    object_id: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """Events of one object that one reading will answer. `attempts` are counted with this one."""

    ref: ObjectRef
    attempts: dict[str, int]
    received_at: datetime

    @property
    def ids(self) -> Collection[str]:
        return self.attempts.keys()


async def due_objects(
    session: AsyncSession, *, now: datetime, limit: int, besides: Collection[ObjectRef] = ()
) -> list[ObjectRef]:
    """Return objects with events that are due, those that have waited longest first; not those `besides`."""
    statement = (
        select(StripeEvent.kind, StripeEvent.object_id)
        .where(StripeEvent.state == State.WAITING, StripeEvent.next_attempt_at <= now)
        .group_by(StripeEvent.kind, StripeEvent.object_id)
        .order_by(func.min(StripeEvent.next_attempt_at), StripeEvent.object_id)
        .limit(limit)
    )
    if besides:
        busy = [(ref.kind, ref.object_id) for ref in besides]
        statement = statement.where(tuple_(StripeEvent.kind, StripeEvent.object_id).not_in(busy))
    # events that wait have an object: the table sees to that
    return [
        ObjectRef(Kind(kind), object_id)
        for kind, object_id in await session.execute(statement)
        if kind is not None and object_id is not None
    ]


async def claim(session: AsyncSession, ref: ObjectRef, *, now: datetime) -> Claimed | None:
    """Take all events that wait for the object, due or not: one reading answers them all. None: there are none.

    The attempt is counted before it is made, so that an object which kills the worker is given up, too.
    """
    statement = (
        select(StripeEvent)
        .where(_of(ref), StripeEvent.state == State.WAITING)
        .order_by(StripeEvent.received_at, StripeEvent.id)
        .with_for_update()
    )
    rows = (await session.scalars(statement)).all()
    for row in rows:
        row.attempts += 1
        row.next_attempt_at = now + max(SHORTEST_CLAIM, pause_after(row.attempts))
    if not rows:
        return None
    return Claimed(ref, {row.id: row.attempts for row in rows}, rows[0].received_at)


async def finish(session: AsyncSession, claimed: Claimed, *, state: State, reason: str, now: datetime) -> None:
    """Say that the events are done or ignored; those whose object turned out to be another one wait on."""
    await session.execute(
        update(StripeEvent)
        .where(_claimed(claimed), StripeEvent.state == State.WAITING)
        .values(state=state, reason=reason, handled_at=now)
        .execution_options(synchronize_session=False)
    )


async def put_back(
    session: AsyncSession, claimed: Claimed, *, reason: str, at: datetime, counted: bool = True
) -> None:
    """Have the events wait until a moment. Not `counted`: the attempt was none of theirs."""
    await session.execute(
        update(StripeEvent)
        .where(_claimed(claimed), or_(StripeEvent.state == State.WAITING, StripeEvent.state == State.DONE))
        .values(
            state=State.WAITING,
            reason=reason,
            handled_at=None,
            next_attempt_at=at,
            attempts=StripeEvent.attempts - (0 if counted else 1),
        )
        .execution_options(synchronize_session=False)
    )


async def give_up(session: AsyncSession, claimed: Claimed, *, ids: Collection[str], reason: str) -> None:
    """Declare some of the events dead: nothing is tried any more until somebody asks for it."""
    await session.execute(
        update(StripeEvent)
        .where(_claimed(claimed), is_any_of(StripeEvent.id, ids))
        .values(state=State.DEAD, reason=reason, handled_at=None)
        .execution_options(synchronize_session=False)
    )


def _of(ref: ObjectRef) -> ColumnElement[bool]:
    return (StripeEvent.kind == ref.kind) & (StripeEvent.object_id == ref.object_id)


def _claimed(claimed: Claimed) -> ColumnElement[bool]:
    return is_any_of(StripeEvent.id, claimed.ids) & _of(claimed.ref)
