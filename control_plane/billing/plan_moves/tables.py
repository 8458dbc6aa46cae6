"""Moves, and the subscriptions in them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class PlanMove(Base):
    """A move to one plan version. `from_versions` (): all others of the plan.

    `timing`: at each one's first period end from `move_at` on, or at that moment. `finished_at`: nothing is left
    to be done, whether it went through or was cancelled.
    """

    __tablename__ = "plan_moves"
    __table_args__ = (
        CheckConstraint("timing IN ('period_end', 'date')", name="timing"),
        CheckConstraint("status IN ('scheduled', 'canceling', 'canceled', 'done')", name="status"),
        CheckConstraint("(status IN ('canceled', 'done')) = (finished_at IS NOT NULL)", name="finished_at"),
        CheckConstraint("notice_days >= 0", name="notice_days"),
        Index(None, "created_at", "id"),
        Index(
            "ix_plan_moves_unfinished",
            "id",
            postgresql_where=text("status IN ('scheduled', 'canceling')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    from_plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    from_versions: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    timing: Mapped[str]
    move_at: Mapped[datetime]
    notice_days: Mapped[int]
    message: Mapped[str] = mapped_column(default="", server_default="")
    status: Mapped[str] = mapped_column(default="scheduled", server_default="scheduled")
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class PlanMoveItem(Base):
    """One subscription in a move. The customer must be told by `tell_by`, of what `notice` says.

    `waiting` (to be planned), `planned` (a phase on the new version lies ahead), `moved`; `skipped`, `failed` and
    `excluded` with a reason, `canceled` with the move. Amounts are minor units a month: `recurring_` flat prices,
    `month_` with the use of the last 30 days.
    """

    __tablename__ = "plan_move_items"
    __table_args__ = (
        CheckConstraint(
            "status IN ('waiting', 'planned', 'moved', 'skipped', 'failed', 'excluded', 'canceled')", name="status"
        ),
        CheckConstraint("status NOT IN ('skipped', 'failed', 'excluded') OR reason <> ''", name="reason"),
        Index(
            "uq_plan_move_items_open",
            "subscription_id",
            unique=True,
            postgresql_where=text("status IN ('waiting', 'planned')"),
        ),
        Index(
            "ix_plan_move_items_waiting",
            "account_id",
            postgresql_where=text("status = 'waiting'"),
        ),
        Index(
            "ix_plan_move_items_planned",
            "effective_at",
            postgresql_where=text("status = 'planned'"),
        ),
        Index(
            "ix_plan_move_items_to_tell",
            "tell_by",
            postgresql_where=text("told_at IS NULL AND status IN ('waiting', 'planned')"),
        ),
    )

    move_id: Mapped[str] = mapped_column(ForeignKey("plan_moves.id"), primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    from_plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    status: Mapped[str]
    reason_code: Mapped[str] = mapped_column(default="", server_default="")
    reason: Mapped[str] = mapped_column(default="", server_default="")
    effective_at: Mapped[datetime]
    tell_by: Mapped[datetime]
    told_at: Mapped[datetime | None]
    notice: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    currency: Mapped[str]
    recurring_before_minor: Mapped[int | None] = mapped_column(BigInteger)
    recurring_after_minor: Mapped[int | None] = mapped_column(BigInteger)
    month_before_minor: Mapped[int | None] = mapped_column(BigInteger)
    month_after_minor: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    updated_at: Mapped[datetime]
