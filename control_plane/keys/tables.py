"""API keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class ApiKey(Base):
    """One API key; only its SHA-256 is here. `windows`: [{"limit", "window_ms"}].

    `gateway_version` grows, under the row's lock, with every change. A key past `expires_at` stays `active`:
    the gateway judges expiry itself. `origin` is `imported` for keys of any form that another gateway gave out;
    short ones have no `hint`, which would give too much of them away.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("mode IN ('live', 'test')", name="mode"),
        CheckConstraint("key_hash ~ '^[0-9a-f]{64}$'", name="key_hash"),
        CheckConstraint("cardinality(scopes) >= 1", name="scopes"),
        CheckConstraint("jsonb_typeof(windows) = 'array'", name="windows"),
        CheckConstraint("quota_units > 0", name="quota_units"),
        CheckConstraint("status IN ('active', 'revoked')", name="status"),
        CheckConstraint("(status = 'revoked') = (revoked_at IS NOT NULL)", name="revoked_at"),
        CheckConstraint("gateway_version >= 1", name="gateway_version"),
        CheckConstraint("origin IN ('issued', 'imported')", name="origin"),
        CheckConstraint("hint IS NOT NULL OR origin = 'imported'", name="hint"),
        Index(None, "account_id", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    mode: Mapped[str]
    key_hash: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str | None]
    origin: Mapped[str] = mapped_column(default="issued", server_default="issued")
    scopes: Mapped[list[str]]
    windows: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    quota_units: Mapped[int | None] = mapped_column(BigInteger)
    ip_ranges: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    expires_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default="active", server_default="active")
    gateway_version: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
