"""What was sealed: the ledger that is billed from, and figures that a later revision has replaced."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR, HourlyFigures

CALLS_METER = ""
"""The ledger's meter for the number of billable calls; no other meter has this name."""


class UsageLedger(Base):
    """What a seal added to an hour's billable units of a phase and meter. Never changed: the database refuses.

    The sum of `delta_units` over the revisions sealed by a moment is what was known of the hour at that moment;
    over all of them, `units` of the latest sealed revision. `phase_id` is '' without a subscription.
    """

    __tablename__ = "usage_ledger"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("units >= 0", name="units"),
        CheckConstraint("delta_units <> 0", name="delta_units"),
        Index(None, "phase_id", "hour"),
        # rows come in about this order, so an index of a few pages finds what was sealed lately
        Index("ix_usage_ledger_sealed_at", "sealed_at", postgresql_using="brin"),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    phase_id: Mapped[str] = mapped_column(primary_key=True)
    meter: Mapped[str] = mapped_column(primary_key=True)
    units: Mapped[int] = mapped_column(BigInteger)
    delta_units: Mapped[int] = mapped_column(BigInteger)
    sealed_at: Mapped[datetime]


class SupersededHour(Base):
    """A seal that was opened again at `superseded_at`. Never changed."""

    __tablename__ = "usage_hours_superseded"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("superseded_at >= sealed_at", name="superseded_at"),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sealed_at: Mapped[datetime]
    superseded_at: Mapped[datetime]


class SupersededHourly(HourlyFigures, Base):
    """A row of figures as it stood at a sealed revision, copied when that was opened again. Never changed."""

    __tablename__ = "usage_hourly_superseded"
    __table_args__ = (CheckConstraint(FULL_HOUR, name="hour"), Index(None, "hour"))

    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
