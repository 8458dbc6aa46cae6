"""Cases of unpaid subscriptions."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base

OPEN = "closed_at IS NULL"


class DunningCase(Base):
    """A subscription from becoming past due until it is paid or over; one is open at a time.

    `after`: what comes when the grace is over, `block`, `free` (the terms of `free_plan_version_id`) or `serve`.
    `told`: which notices were queued. `last_notice_at`: when the last day was told of. `state`: `grace`,
    `blocked`, `fallen_back`; closed: `recovered`, `over`. `look_at`: when the next step is due, NULL for none.
    """

    __tablename__ = "dunning_cases"
    __table_args__ = (
        CheckConstraint("state IN ('grace', 'blocked', 'fallen_back', 'recovered', 'over')", name="state"),
        CheckConstraint("(state IN ('recovered', 'over')) = (closed_at IS NOT NULL)", name="closed_at"),
        CheckConstraint("after IN ('block', 'free', 'serve')", name="after"),
        CheckConstraint("after <> 'free' OR free_plan_version_id IS NOT NULL", name="free_plan"),
        Index("uq_dunning_cases_open", "subscription_id", unique=True, postgresql_where=text(OPEN)),
        Index("ix_dunning_cases_look_at", "look_at", postgresql_where=text(f"{OPEN} AND look_at IS NOT NULL")),
        Index(None, "account_id", "opened_at"),
        Index(None, "opened_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    state: Mapped[str]
    after: Mapped[str]
    free_plan_version_id: Mapped[str | None] = mapped_column(ForeignKey("plan_versions.id"))
    told: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    opened_at: Mapped[datetime]
    grace_until: Mapped[datetime]
    last_notice_at: Mapped[datetime | None]
    look_at: Mapped[datetime | None]
    fell_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
