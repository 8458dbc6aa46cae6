"""Kong nodes that configuration is pushed to."""

from datetime import datetime

from sqlalchemy import CheckConstraint
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
