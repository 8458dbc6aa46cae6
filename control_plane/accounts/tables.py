"""Accounts and API tokens."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class Account(Base):
    """`gateway_version` grows, under the row's lock, with every change that shows in the gateway's record.

    `external_id` is what another system calls the account: a consumer's custom id or name, a customer number.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("gateway_version >= 1", name="gateway_version"),
        CheckConstraint("char_length(external_id) BETWEEN 1 AND 200", name="external_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str]
    email: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="active", server_default="active")
    currency: Mapped[str] = mapped_column(default="USD", server_default="USD")
    time_zone: Mapped[str] = mapped_column(default="UTC", server_default="UTC")
    gateway_version: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    created_at: Mapped[datetime]


class ApiToken(Base):
    """A token for the admin API; only its SHA-256 is here."""

    __tablename__ = "api_tokens"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("token_hash ~ '^[0-9a-f]{64}$'", name="token_hash"),
        CheckConstraint("role IN ('owner', 'admin', 'finance', 'support', 'read_only', 'ingest')", name="role"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    token_hash: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
