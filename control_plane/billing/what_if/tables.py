"""Jobs, and what they found."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class WhatIfJob(Base):
    """New `terms` of a plan, replayed over the last `months`. `done_until`: the last subscription worked out."""

    __tablename__ = "what_if_jobs"
    __table_args__ = (
        CheckConstraint("source IN ('draft', 'version', 'plan_file')", name="source"),
        CheckConstraint("status IN ('queued', 'done', 'failed')", name="status"),
        CheckConstraint("months BETWEEN 1 AND 12", name="months"),
        CheckConstraint("(status = 'queued') = (finished_at IS NULL)", name="finished_at"),
        Index(None, "created_at", "id"),
        Index("ix_what_if_jobs_queued", "created_at", postgresql_where=text("status = 'queued'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    source: Mapped[str]
    terms: Mapped[dict[str, Any]]
    months: Mapped[int]
    status: Mapped[str] = mapped_column(default="queued", server_default="queued")
    as_of: Mapped[datetime]
    done_until: Mapped[str] = mapped_column(default="", server_default="")
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    error: Mapped[str] = mapped_column(default="", server_default="")
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class WhatIfResult(Base):
    """One subscription: minor units of `periods` billing periods as they were and as they would have been.

    `after_minor` is null where the terms have no prices in the currency. `refused_units`: quota units that the
    terms would have refused; they are not charged.
    """

    __tablename__ = "what_if_results"
    __table_args__ = (CheckConstraint("periods >= 1", name="periods"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("what_if_jobs.id"), primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    currency: Mapped[str]
    periods: Mapped[int]
    before_minor: Mapped[int] = mapped_column(BigInteger)
    after_minor: Mapped[int | None] = mapped_column(BigInteger)
    refused_units: Mapped[int] = mapped_column(BigInteger)
