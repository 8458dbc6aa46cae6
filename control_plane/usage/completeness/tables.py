"""What the gateway's counters said of each hour, and how it compares with what is stored and rolled up."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR


class CountedUsage(Base):
    """One subscription's hour in one mode: a row is written as soon as the hour has ended, and judged later.

    `admitted`: calls that got a number; `numbers`: these, as [[first, last], ...]. `not_counted`: calls that the
    counter only heard of from usage (see `gateway_contract.counters`). `stored`: events with a number,
    `unnumbered`: those of calls that were made while Redis was away; `rolled_up`: served calls in `usage_hourly`.
    `missing_calls` is exact; `missing` lists the first: [{"first", "last", "after_ms", "before_ms", "nodes"}].
    """

    __tablename__ = "usage_completeness"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("mode IN ('live', 'test')", name="mode"),
        CheckConstraint("state IN ('waiting', 'complete', 'missing', 'surplus', 'unknown')", name="state"),
        CheckConstraint("missing_calls >= 0", name="missing_calls"),
        Index(None, "account_id", "hour"),
        Index("ix_usage_completeness_not_complete", "hour", postgresql_where=text("state <> 'complete'")),
    )

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    product: Mapped[str]
    period_start: Mapped[datetime]
    admitted: Mapped[int] = mapped_column(BigInteger)
    not_counted: Mapped[int] = mapped_column(BigInteger)
    numbers: Mapped[list[dict[str, Any]]]
    counted_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(default="waiting", server_default=text("'waiting'"))
    stored: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    unnumbered: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    rolled_up: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    missing_calls: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    missing: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    checked_at: Mapped[datetime | None]


class HourCheck(Base):
    """The last look at an account's hour: the revision that was compared, and whether store and rollup agree.

    `recheck_at`: when to look again; NULL once nothing is expected to change. `differs_since`: figures recomputed
    from the store are others than those in `usage_hourly`. `settled`: `yes`, `differs`, `pending`, or `none` where
    no counter holds the hour.
    """

    __tablename__ = "usage_hour_checks"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("settled IN ('yes', 'differs', 'pending', 'none')", name="settled"),
        Index("ix_usage_hour_checks_due", "recheck_at", postgresql_where=text("recheck_at IS NOT NULL")),
        Index(
            "ix_usage_hour_checks_wrong",
            "hour",
            postgresql_where=text("differs_since IS NOT NULL OR settled = 'differs'"),
        ),
        Index(None, "hour"),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    checked_at: Mapped[datetime]
    recheck_at: Mapped[datetime | None]
    differs_since: Mapped[datetime | None]
    differences: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    settled: Mapped[str]


class CompletenessRun(Base):
    """One row: up to which hour counters were read, and up to which seal hours were checked and digested."""

    __tablename__ = "usage_completeness_runs"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, default=1, server_default=text("1"))
    counted_until: Mapped[datetime]
    checked_until: Mapped[datetime | None]
    digested_until: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    sampled_at: Mapped[datetime | None]
