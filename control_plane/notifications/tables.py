"""Mails on their way."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class Mail(Base):
    """One mail to one account, or to a given address (`to_address`). `sent_to`: where it went.

    `cause` names what it tells of, so that nothing is told twice. `leased_until` is set while a process sends it:
    one that is over means that the process died, and nobody knows whether it went out (`cut_off` counts these).
    `sending` grows when somebody has it sent again. `values` are what the template says, amounts and moments raw.
    """

    __tablename__ = "mails"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'sent', 'refused', 'given_up', 'unknown')", name="state"),
        CheckConstraint("account_id IS NOT NULL OR to_address IS NOT NULL", name="recipient"),
        CheckConstraint("jsonb_typeof(\"values\") = 'object'", name="values"),
        CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="sent_at"),
        Index("ix_mails_waiting", "due_at", postgresql_where=text("state = 'waiting'")),
        Index(None, "created_at", "id"),
        Index(None, "account_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    cause: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
    to_address: Mapped[str | None]
    sent_to: Mapped[str | None]
    subject: Mapped[str] = mapped_column(default="", server_default="")
    values: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="waiting", server_default="waiting")
    sending: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    message_id: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    cut_off: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    wanted_at: Mapped[datetime]
    due_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None]
