"""Positions of shippers, touched hours and hourly rollups.

`account_id` is '' for calls of nobody, so these tables carry no foreign key.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, Index, SmallInteger, or_, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base

FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"


class ShipperPosition(Base):
    """How far one spool segment was committed."""

    __tablename__ = "shipper_positions"
    __table_args__ = (CheckConstraint("end_offset >= 0", name="end_offset"), Index(None, "updated_at"))

    shipper_id: Mapped[str] = mapped_column(primary_key=True)
    segment: Mapped[str] = mapped_column(primary_key=True)
    end_offset: Mapped[int] = mapped_column(BigInteger)
    shipped_up_to_ms: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime]


class ShipperRange(Base):
    """Bytes of a segment that were stored beyond a gap; the position passes them once the gap is filled."""

    __tablename__ = "shipper_ranges"
    __table_args__ = (CheckConstraint("start_offset >= 0 AND end_offset > start_offset", name="offsets"),)

    shipper_id: Mapped[str] = mapped_column(primary_key=True)
    segment: Mapped[str] = mapped_column(primary_key=True)
    start_offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    end_offset: Mapped[int] = mapped_column(BigInteger)


class Shipper(Base):
    """A live shipper holds the seal of every hour it has not shipped past; a retired one holds nothing."""

    __tablename__ = "shippers"

    shipper_id: Mapped[str] = mapped_column(primary_key=True)
    shipped_up_to_ms: Mapped[int] = mapped_column(BigInteger)
    last_seen_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class TouchedHour(Base):
    """An hour with new events; cleared only at the generation that was read."""

    __tablename__ = "touched_hours"
    __table_args__ = (CheckConstraint(FULL_HOUR, name="hour"), Index(None, "touched_at"))

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    touched_at: Mapped[datetime]


class ReplayHour(Base):
    """An hour that holds calls flagged `replayed`: whether they are billed depends on the 24 hours before it."""

    __tablename__ = "replay_hours"
    __table_args__ = (CheckConstraint(FULL_HOUR, name="hour"),)

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)


class UnmatchedReplay(Base):
    """A call flagged `replayed` that is billed, since no original is known; it is the original of later ones.

    At most one an hour for each `call_hash` (product, mode, method and path: see `replay_calls.sql`).
    """

    __tablename__ = "unmatched_replays"
    __table_args__ = (CheckConstraint(FULL_HOUR, name="hour"),)

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    call_hash: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    occurred_at_ms: Mapped[int] = mapped_column(BigInteger)


class UsageHour(Base):
    """The row that is locked while an hour is recomputed, sealed or corrected.

    `recompute_ms` is what the last recompute took; before `recompute_after` it is not done again, unless it can be
    sealed.
    """

    __tablename__ = "usage_hours"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("revision >= 0", name="revision"),
        Index("ix_usage_hours_open", "hour", postgresql_where=text("sealed_at IS NULL")),
        Index("ix_usage_hours_sealed_at", "sealed_at"),
        Index("ix_usage_hours_sealed", "sealed_at", postgresql_where=text("sealed_at IS NOT NULL")),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    aggregated_at: Mapped[datetime | None]
    sealed_at: Mapped[datetime | None]
    recompute_ms: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    recompute_after: Mapped[datetime | None]


class HourlyFigures:
    """Columns of a row of figures. `phase_id` is '' without a subscription.

    `replayed` rows hold answers that the upstream repeated for calls that were billed before: not billable.
    `amendment_id` rows hold what an amendment adds to what is billable (its figures may be below zero), and have
    the outcome `amended`; '' on all others. Rows of outcome `reported` count events of applications as `calls`; of
    them only `billable_dimensions` are billed.
    """

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    phase_id: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    replayed: Mapped[bool] = mapped_column(primary_key=True, default=False, server_default=text("false"))
    amendment_id: Mapped[str] = mapped_column(primary_key=True, default="", server_default=text("''"))
    calls: Mapped[int] = mapped_column(BigInteger)
    units: Mapped[int] = mapped_column(BigInteger)
    billable_calls: Mapped[int] = mapped_column(BigInteger)
    billable_units: Mapped[int] = mapped_column(BigInteger)
    bytes_in: Mapped[int] = mapped_column(BigInteger)
    bytes_out: Mapped[int] = mapped_column(BigInteger)
    latency_ms_sum: Mapped[int] = mapped_column(BigInteger)
    gateway_ms_sum: Mapped[int] = mapped_column(BigInteger)
    upstream_ms_sum: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    dimensions: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    billable_dimensions: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))


class UsageHourly(HourlyFigures, Base):
    """Figures of one hour as they stand, written whole, never added to."""

    __tablename__ = "usage_hourly"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("mode IN ('', 'live', 'test')", name="mode"),
        CheckConstraint("amendment_id <> '' OR billable_calls BETWEEN 0 AND calls", name="billable_calls"),
        CheckConstraint("amendment_id <> '' OR billable_units BETWEEN 0 AND units", name="billable_units"),
        CheckConstraint("NOT (replayed AND billable_calls > 0)", name="replayed"),
        Index(None, "phase_id", "hour"),
        Index(None, "key_id", "hour"),
    )

    revision: Mapped[int] = mapped_column(BigInteger)


def is_billed(figures: type[HourlyFigures] | Any = UsageHourly) -> ColumnElement[bool]:
    """Return the condition that what the gateway measured of a row (bytes, times) is billed: all, or nothing."""
    return or_(figures.billable_calls > 0, figures.amendment_id != "")
