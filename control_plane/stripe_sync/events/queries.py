"""The inbox for reading."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.stripe_sync.events.model import State
from control_plane.stripe_sync.events.tables import StripeEvent, StripeEventReads


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; what is left empty is not asked for. `until` is not in the range."""

    states: tuple[State, ...] = ()
    type: str = ""
    object_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class InboxStanding:
    """How much is waiting, since when, and how much was given up; when Stripe's lists were read last."""

    waiting: int
    oldest_received_at: datetime | None
    dead: int
    lists_read_at: datetime | None


async def list_events(
    session: AsyncSession, wanted: EventFilter, *, cursor: str | None, limit: int
) -> Page[StripeEvent]:
    """Return events, those that came last first; bodies are not read."""
    statement = select(StripeEvent).options(defer(StripeEvent.body, raiseload=True)).where(*_conditions(wanted))
    if cursor is not None:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(StripeEvent.received_at, StripeEvent.id) < after)
    rows = await session.scalars(
        statement.order_by(StripeEvent.received_at.desc(), StripeEvent.id.desc()).limit(limit + 1)
    )
    return page_of(rows.all(), limit=limit, sort_values=lambda row: (row.received_at, row.id))


async def find_event(session: AsyncSession, event_id: str) -> StripeEvent:
    """Return an event with its body, if that is still kept.

    Raises:
        NotFoundError: there is none in the inbox.
    """
    row = await session.get(StripeEvent, event_id)
    if row is None:
        raise NotFoundError("stripe_event", event_id)
    return row


async def inbox_standing(session: AsyncSession) -> InboxStanding:
    """Return what operators should know at a glance."""
    waiting, oldest = (
        await session.execute(
            select(func.count(), func.min(StripeEvent.received_at)).where(StripeEvent.state == State.WAITING)
        )
    ).one()
    dead = await session.scalar(select(func.count()).where(StripeEvent.state == State.DEAD))
    read_at = await session.scalar(select(func.min(StripeEventReads.finished_at)))
    return InboxStanding(waiting, oldest, dead or 0, read_at)


def _conditions(wanted: EventFilter) -> Collection[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.states:
        conditions.append(is_any_of(StripeEvent.state, wanted.states))
    if wanted.type:
        conditions.append(StripeEvent.type == wanted.type)
    if wanted.object_id:
        conditions.append(StripeEvent.object_id == wanted.object_id)
    if wanted.since is not None:
        conditions.append(StripeEvent.received_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(StripeEvent.received_at < wanted.until)
    return conditions
