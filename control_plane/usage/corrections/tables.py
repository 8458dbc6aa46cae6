"""Voids, amendments and withdrawals: rows that are never changed, the database refuses."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR

REASON_LENGTH = "char_length(reason) BETWEEN 1 AND 1000"


class UsageVoid(Base):
    """An event that counts nothing; it stays in the request history."""

    __tablename__ = "usage_voids"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint(REASON_LENGTH, name="reason"),
        Index(None, "account_id", "hour", "event_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    hour: Mapped[datetime]
    event_id: Mapped[str]
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime]


class UsageAmendment(Base):
    """Amounts added to what is billable of an hour; below zero they are taken away.

    `calls`: billable calls; `meters`: units by meter (`requests` are quota units). `declared`: which of them the
    catalog declares as meters, so that no row of the hour holds them. `reference` is the caller's own, once in an
    account.
    """

    __tablename__ = "usage_amendments"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint(REASON_LENGTH, name="reason"),
        UniqueConstraint("account_id", "reference"),
        Index(None, "account_id", "hour"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    hour: Mapped[datetime]
    phase_id: Mapped[str]
    product: Mapped[str]
    key_id: Mapped[str]
    endpoint: Mapped[str]
    calls: Mapped[int] = mapped_column(BigInteger)
    meters: Mapped[dict[str, Any]]
    declared: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    reference: Mapped[str | None]
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime]


class UsageWithdrawal(Base):
    """Takes back a void or an amendment, for good."""

    __tablename__ = "usage_withdrawals"
    __table_args__ = (CheckConstraint(REASON_LENGTH, name="reason"),)

    correction_id: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime]
