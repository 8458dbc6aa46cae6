"""Kong nodes that configuration is pushed to, and which plan would have fitted each subscription."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Row
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class GatewayNode(Base):
    """One Kong node by its Admin API's address; `config_hash` is what we last pushed to it."""

    __tablename__ = "gateway_nodes"
    __table_args__ = (
        CheckConstraint("status IN ('unknown', 'in_sync', 'drifted', 'unreachable')", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    admin_url: Mapped[str] = mapped_column(unique=True)
    config_hash: Mapped[str | None]
    pushed_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default="unknown", server_default="unknown")
    checked_at: Mapped[datetime | None]
    detail: Mapped[str | None]


class UpgradeHint(Base):
    """Which plan would have fitted the 30 days before `computed_at`; `fitting_plan` None: nothing larger is sold.

    It holds for one plan version and quota, which are its `basis`: after a change it is void until it is computed
    anew. `demand` and `offers` say why (see `fitting_plans`).
    """

    __tablename__ = "upgrade_hints"

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    computed_at: Mapped[datetime]
    basis: Mapped[str]
    fitting_plan: Mapped[str | None]
    demand: Mapped[dict[str, Any]]
    offers: Mapped[list[dict[str, Any]]]


def hint_basis(row: Row[Any]) -> str:
    """Return what a hint is computed for: a row's `plan_version_id`, and the quota in its `overrides`."""
    return f"{row.plan_version_id} {row.overrides.get('quota_units', '')}"
