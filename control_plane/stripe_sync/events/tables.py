"""The inbox of Stripe's events, and how far Stripe's own list of them was read."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class StripeEvent(Base):
    """One event, however it came to us and however often.

    `kind` and `object_id` name what is read again; both are NULL where the type is none that we act on. What we
    ask ourselves to read (a resync, or an event known by its id alone) has a row of the same form.
    """

    __tablename__ = "stripe_events"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'done', 'ignored', 'dead')", name="state"),
        CheckConstraint("source IN ('webhook', 'list', 'replay', 'resync')", name="source"),
        CheckConstraint("(kind IS NULL) = (object_id IS NULL)", name="kind_names_object"),
        CheckConstraint("state = 'ignored' OR kind IS NOT NULL", name="read_or_ignored"),
        Index(None, "next_attempt_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_stripe_events_dead", "received_at", "id", postgresql_where=text("state = 'dead'")),
        Index("ix_stripe_events_with_body", "received_at", postgresql_where=text("body IS NOT NULL")),
        Index(None, "object_id", "created_at"),
        Index(None, "received_at", "id"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    kind: Mapped[str | None]
    object_id: Mapped[str | None]
    created_at: Mapped[datetime]
    source: Mapped[str]
    received_at: Mapped[datetime]
    deliveries: Mapped[int]
    last_delivered_at: Mapped[datetime | None]
    body: Mapped[bytes | None]
    state: Mapped[str]
    reason: Mapped[str]
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime]
    handled_at: Mapped[datetime | None]


class StripeEventReads(Base):
    """How far a list of Stripe's was read: whatever was created before `read_until` is in the inbox."""

    __tablename__ = "stripe_event_reads"

    name: Mapped[str] = mapped_column(primary_key=True)
    read_until: Mapped[datetime]
    finished_at: Mapped[datetime | None]
