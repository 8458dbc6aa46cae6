"""Days that changed, days that were rolled up, and their figures."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base

FULL_DAY = "mod(extract(epoch FROM day), 86400) = 0"


class TouchedDay(Base):
    """A day with hours that changed since it was rolled up; cleared only at the generation that was read."""

    __tablename__ = "touched_days"
    __table_args__ = (CheckConstraint(FULL_DAY, name="day"), Index(None, "day"))

    account_id: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[datetime] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    touched_at: Mapped[datetime]


class UsageDay(Base):
    """The row that is locked while a day is rolled up.

    From `hours_dropped_at` on, its daily figures are all there is.
    """

    __tablename__ = "usage_days"
    __table_args__ = (
        CheckConstraint(FULL_DAY, name="day"),
        CheckConstraint("hours_dropped_at IS NULL OR rolled_up_at IS NOT NULL", name="hours_dropped_at"),
        Index("ix_usage_days_with_hours", "day", postgresql_where=text("hours_dropped_at IS NULL")),
        Index("ix_usage_days_without_hours", "day", postgresql_where=text("hours_dropped_at IS NOT NULL")),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[datetime] = mapped_column(primary_key=True)
    rolled_up_at: Mapped[datetime | None]
    hours_dropped_at: Mapped[datetime | None]


class UsageDaily(Base):
    """Sums of a UTC day's rows in `usage_hourly`, by everything but the hour; written whole."""

    __tablename__ = "usage_daily"
    __table_args__ = (
        CheckConstraint(FULL_DAY, name="day"),
        Index(None, "phase_id", "day"),
        Index(None, "key_id", "day"),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[datetime] = mapped_column(primary_key=True)
    phase_id: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    replayed: Mapped[bool] = mapped_column(primary_key=True)
    amendment_id: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    units: Mapped[int] = mapped_column(BigInteger)
    billable_calls: Mapped[int] = mapped_column(BigInteger)
    billable_units: Mapped[int] = mapped_column(BigInteger)
    bytes_in: Mapped[int] = mapped_column(BigInteger)
    bytes_out: Mapped[int] = mapped_column(BigInteger)
    latency_ms_sum: Mapped[int] = mapped_column(BigInteger)
    gateway_ms_sum: Mapped[int] = mapped_column(BigInteger)
    upstream_ms_sum: Mapped[int] = mapped_column(BigInteger)
    dimensions: Mapped[dict[str, Any]]
    billable_dimensions: Mapped[dict[str, Any]]
