"""What declared meters come to, by hour and by billing period, and jobs that count stored events.

Values are kept by the meter's id: rows of a meter that was replaced before anything used it are never read.
"""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR


class MeterHourly(Base):
    """A meter's value in one hour of a phase, written whole, never added to; no row where nothing counted.

    `value` of unique is the number of different values within the hour: hours of unique do not add up. Of latest,
    `latest_at_ms` and `latest_event_id` say which event it is of.
    """

    __tablename__ = "meter_hourly"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("value >= 0", name="value"),
        CheckConstraint("events > 0", name="events"),
        Index(None, "phase_id", "hour"),
        Index(None, "meter_id", "hour"),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    phase_id: Mapped[str] = mapped_column(primary_key=True)
    meter_id: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)
    latest_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    latest_event_id: Mapped[str | None]


class MeterPeriod(Base):
    """How many different values a unique meter saw in a billing period, under one plan version."""

    __tablename__ = "meter_periods"
    __table_args__ = (CheckConstraint("value >= 0", name="value"), CheckConstraint("events > 0", name="events"))

    subscription_id: Mapped[str] = mapped_column(primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    meter_id: Mapped[str] = mapped_column(primary_key=True)
    plan_version_id: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)


class MeterPeriodState(Base):
    """A billing period whose unique meters were touched; up to date where `counted_generation` is `generation`.

    Recomputed at `due_at` at the earliest, unless the period is over.
    """

    __tablename__ = "meter_period_states"
    __table_args__ = (
        CheckConstraint("period_end > period_start", name="period_end"),
        CheckConstraint("counted_generation BETWEEN 0 AND generation", name="counted_generation"),
        Index("ix_meter_period_states_due", "due_at", postgresql_where=text("counted_generation < generation")),
        Index(None, "account_id", "period_end"),
    )

    subscription_id: Mapped[str] = mapped_column(primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    period_end: Mapped[datetime]
    account_id: Mapped[str]
    generation: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    counted_generation: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    due_at: Mapped[datetime]
    counted_at: Mapped[datetime | None]


class MeterBackfill(Base):
    """A job that counts stored events for one meter.

    It stands at `next_hour` of `last_subscription_id`; where that is NULL, it is done with that subscription.

    `starts_at` NULL: from the beginning of each subscription's current billing period, at `created_at`. Hours from
    `ends_at` on need no job: they began after the meter was there.
    """

    __tablename__ = "meter_backfills"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'done', 'stopped')", name="status"),
        CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="finished_at"),
        Index("ix_meter_backfills_running", "created_at", postgresql_where=text("status = 'running'")),
        Index(None, "meter_id"),
        Index("uq_meter_backfills_running", "meter_id", unique=True, postgresql_where=text("status = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    meter_id: Mapped[str]
    status: Mapped[str] = mapped_column(default="running", server_default="running")
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime]
    last_subscription_id: Mapped[str] = mapped_column(default="", server_default="")
    next_hour: Mapped[datetime | None]
    subscriptions_total: Mapped[int]
    subscriptions_done: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    hours_done: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    hours_skipped: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
