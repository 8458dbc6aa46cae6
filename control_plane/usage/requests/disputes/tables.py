"""Dispute cases, copies of their requests, and their trail. The database refuses to change trail and copies."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class Dispute(Base):
    """A case. `steps` counts the entries of its trail; at commit the last one must have led to `status`."""

    __tablename__ = "disputes"
    __table_args__ = (
        CheckConstraint("status IN ('open', 'under_review', 'decided', 'closed')", name="status"),
        CheckConstraint("decision IN ('accepted', 'partly', 'rejected')", name="decision"),
        CheckConstraint("status NOT IN ('decided', 'closed') OR decision IS NOT NULL", name="decided"),
        CheckConstraint("steps > 0", name="steps"),
        Index(None, "opened_at", "id"),
        Index(None, "account_id", "opened_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    status: Mapped[str]
    subject: Mapped[str]
    reason: Mapped[str]
    period_text: Mapped[str]
    amount_text: Mapped[str]
    opened_by: Mapped[str]
    opened_at: Mapped[datetime]
    decision: Mapped[str | None]
    explanation: Mapped[str]
    decided_at: Mapped[datetime | None]
    request_count: Mapped[int]
    steps: Mapped[int]


class DisputedRequest(Base):
    """A request as it was stored when it was added to the case: retention does not remove the evidence."""

    __tablename__ = "disputed_requests"
    __table_args__ = (Index(None, "dispute_id", "occurred_at", "event_id"),)

    dispute_id: Mapped[str] = mapped_column(ForeignKey("disputes.id"), primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    occurred_at: Mapped[datetime]
    event: Mapped[dict[str, Any]]
    added_in_step: Mapped[int]


class DisputeStep(Base):
    """One entry of a trail. `internal` ones are not for the customer."""

    __tablename__ = "dispute_steps"
    __table_args__ = (CheckConstraint("number > 0", name="number"),)

    dispute_id: Mapped[str] = mapped_column(ForeignKey("disputes.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    author: Mapped[str]
    step: Mapped[str]
    text: Mapped[str]
    internal: Mapped[bool]
    status_before: Mapped[str | None]
    status_after: Mapped[str]
    details: Mapped[dict[str, Any]]
