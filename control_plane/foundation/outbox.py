"""The outbox: news written in the transaction of the change it tells of, worked off by whoever subscribes.

A worker claims rows, does its work and finishes them in one transaction: when it dies, the rows are free again
at once. Work must therefore be idempotent.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Identity,
    Index,
    Text,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base, UtcDateTime

CHANNEL = "km_outbox"


class Topic(StrEnum):
    """What a row tells of; `entity_id` is the id of the thing named first."""

    KEY_CHANGED = "key.changed"
    ACCOUNT_CHANGED = "account.changed"
    HOUR_SEALED = "hour.sealed"
    USAGE_INCOMPLETE = "usage.incomplete"
    CONFIG_CHANGED = "config.changed"
    PRODUCT_CHANGED = "product.changed"
    UPGRADE_HINT_VOID = "upgrade_hint.void"
    SUBSCRIPTION_CHANGED = "subscription.changed"
    INVOICE_FINALISED = "invoice.finalised"


class OutboxRow(Base):
    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_waiting", "topic", "id", postgresql_where=text("done_at IS NULL")),
        Index("ix_outbox_done", "done_at", postgresql_where=text("done_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    topic: Mapped[str]
    entity_id: Mapped[str]
    payload: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


async def enqueue(
    session: AsyncSession,
    *,
    topic: Topic | str,
    entity_id: str,
    payload: dict[str, Any] | None = None,
    now: datetime,
) -> None:
    """Write one row and wake listeners of the channel `km_outbox` (payload: the topic) when it commits."""
    session.add(OutboxRow(topic=str(topic), entity_id=entity_id, payload=payload, created_at=now))
    await session.flush()
    await session.execute(select(func.pg_notify(CHANNEL, str(topic))))


async def enqueue_many(
    session: AsyncSession, *, topic: Topic | str, entity_ids: Collection[str], now: datetime
) -> None:
    """Write a row without payload for each id, in one statement."""
    if entity_ids:
        ids = func.unnest(cast(list(entity_ids), ARRAY(Text()))).column_valued("entity_id")
        rows = select(literal(str(topic)), ids, literal(now, UtcDateTime()))
        await session.execute(insert(OutboxRow).from_select(["topic", "entity_id", "created_at"], rows))
        await session.execute(select(func.pg_notify(CHANNEL, str(topic))))


async def claim(session: AsyncSession, *, topics: Collection[str], limit: int) -> Sequence[OutboxRow]:
    """Return up to `limit` waiting rows in the order of writing, locked until this transaction ends.

    Rows that another worker holds are passed over, so no row is ever in two hands; rows of a transaction that
    commits late are found later (nobody remembers "the last id").
    """
    statement = (
        select(OutboxRow)
        .where(OutboxRow.done_at.is_(None), OutboxRow.topic.in_([str(topic) for topic in topics]))
        .order_by(OutboxRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return (await session.scalars(statement)).all()


async def finish(session: AsyncSession, ids: Collection[int], now: datetime) -> None:
    """Mark claimed rows as done; to be called in the transaction that claimed them."""
    if ids:
        await session.execute(
            update(OutboxRow)
            .where(OutboxRow.id.in_(ids), OutboxRow.done_at.is_(None))
            .values(done_at=now)
            .execution_options(synchronize_session=False)
        )


async def forget_done(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` rows that were done before a moment, the oldest first; returns how many.

    Rows that wait are never touched, however old. Several workers may do this at once.
    """
    oldest = (
        select(OutboxRow.id)
        .where(OutboxRow.done_at < before)
        .order_by(OutboxRow.done_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    deleted = await session.execute(
        delete(OutboxRow)
        .where(OutboxRow.id.in_(oldest.scalar_subquery()))
        .returning(OutboxRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(deleted.all())
