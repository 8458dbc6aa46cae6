"""The inbox: each event is stored once, however often and by whatever way it comes."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import case, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.stripe_sync.events.model import NOT_READ, Source, State, Told
from control_plane.stripe_sync.events.tables import StripeEvent

_REVIVED = StripeEvent.state == State.DEAD


async def store_delivered(session: AsyncSession, told: Told, *, body: bytes, now: datetime) -> bool:
    """Store what a webhook brought; True if it was not known before.

    One known before is counted once more and stays as it is, but for a dead one: somebody has Stripe send it
    again, so it is tried once more. The bodies of events that nobody acts on are not kept.
    """
    made = _row(told, Source.WEBHOOK, now) | {
        "deliveries": 1,
        "last_delivered_at": now,
        "body": None if told.kind is None else body,
    }
    statement = insert(StripeEvent).values(made)
    statement = statement.on_conflict_do_update(
        index_elements=[StripeEvent.id],
        set_={
            "deliveries": StripeEvent.deliveries + 1,
            "last_delivered_at": now,
            "body": func.coalesce(StripeEvent.body, statement.excluded.body),
            "state": case((_REVIVED, State.WAITING), else_=StripeEvent.state),
            "next_attempt_at": case((_REVIVED, now), else_=StripeEvent.next_attempt_at),
        },
    )
    # a row that this statement made was deleted by nobody yet
    return bool(await session.scalar(statement.returning(literal_column("xmax = 0"))))


async def store_found(session: AsyncSession, found: Collection[Told], *, now: datetime) -> frozenset[str]:
    """Store events of Stripe's own list; returns the ids of those that were not known before."""
    if not found:
        return frozenset()
    rows = [_row(told, Source.LIST, now) | {"deliveries": 0} for told in found]
    statement = insert(StripeEvent).values(rows).on_conflict_do_nothing(index_elements=[StripeEvent.id])
    return frozenset(await session.scalars(statement.returning(StripeEvent.id)))


def _row(told: Told, source: Source, now: datetime) -> dict[str, object]:
    return {
        "id": told.id,
        "type": told.type,
        "kind": told.kind,
        "object_id": told.object_id,
        "created_at": told.created_at,
        "source": source,
        "received_at": now,
        "state": State.IGNORED if told.kind is None else State.WAITING,
        "reason": NOT_READ if told.kind is None else "",
        "attempts": 0,
        "next_attempt_at": now,
    }


async def forget_bodies(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Delete the bodies of up to `limit` events that came before a moment; what became of them stays known."""
    oldest = (
        select(StripeEvent.id)
        .where(StripeEvent.body.is_not(None), StripeEvent.received_at < before)
        .order_by(StripeEvent.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    forgotten = await session.execute(
        update(StripeEvent)
        .where(StripeEvent.id.in_(oldest.scalar_subquery()))
        .values(body=None)
        .returning(StripeEvent.id)
        .execution_options(synchronize_session=False)
    )
    return len(forgotten.all())


async def forget_ignored(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` events that nobody acts on and that came before a moment."""
    oldest = (
        select(StripeEvent.id)
        .where(StripeEvent.kind.is_(None), StripeEvent.received_at < before)
        .order_by(StripeEvent.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    forgotten = await session.execute(
        delete(StripeEvent)
        .where(StripeEvent.id.in_(oldest.scalar_subquery()))
        .returning(StripeEvent.id)
        .execution_options(synchronize_session=False)
    )
    return len(forgotten.all())


KEEP_IGNORED = timedelta(days=35)
"""Longer than Stripe lists events, so that none is taken for a new one."""
