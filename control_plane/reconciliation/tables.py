"""Reconciliations, and where they found differences."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class Reconciliation(Base):
    """One comparison of [span_start, span_end), of one account or of all (`account_id` NULL).

    `links`: [{"link", "state", "checked", "checked_what", "expected", "found", "wrong", "waiting", "note"}], along
    the way from a call to an invoice; empty until it is done. `state` is the worst of them.
    `with_stripe`: whether Stripe is asked for what it has added up, which costs requests.
    """

    __tablename__ = "reconciliations"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'done', 'failed')", name="status"),
        CheckConstraint("state IN ('', 'equal', 'waiting', 'differs', 'not_checked')", name="state"),
        CheckConstraint("(status = 'queued') = (finished_at IS NULL)", name="finished_at"),
        CheckConstraint("span_end > span_start", name="span"),
        Index(None, "created_at", "id"),
        Index("ix_reconciliations_queued", "created_at", postgresql_where=text("status = 'queued'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str | None]
    span_start: Mapped[datetime]
    span_end: Mapped[datetime]
    with_stripe: Mapped[bool]
    status: Mapped[str] = mapped_column(default="queued", server_default="queued")
    state: Mapped[str] = mapped_column(default="", server_default="")
    links: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    error: Mapped[str] = mapped_column(default="", server_default="")
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class FoundDifference(Base):
    """One difference; `number` counts those that are wrong first, then along the way from a call to an invoice."""

    __tablename__ = "reconciliation_differences"
    __table_args__ = (
        CheckConstraint("severity IN ('wrong', 'waiting')", name="severity"),
        Index(None, "reconciliation_id", "account_id"),
    )

    reconciliation_id: Mapped[str] = mapped_column(
        ForeignKey("reconciliations.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    link: Mapped[str]
    severity: Mapped[str]
    account_id: Mapped[str]
    subscription_id: Mapped[str | None]
    meter: Mapped[str | None]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    unit: Mapped[str]
    expected: Mapped[int] = mapped_column(BigInteger)
    found: Mapped[int] = mapped_column(BigInteger)
    cause: Mapped[str]
    detail: Mapped[str]
