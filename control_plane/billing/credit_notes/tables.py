"""Credit notes and their lines."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.foundation.db import Base


class CreditNote(Base):
    """What is taken back of an invoice; final from the start, the database refuses to change it.

    `total_minor` = subtotal - discount + tax = `to_due_minor` (taken off what was due) + `to_balance_minor` (added
    to the account's balance) + `to_outside_minor` (paid back by other means). `taxes`: as on invoices.
    `lowers_billed`: its lines count against what was billed, so that the next invoice does not give them back
    again (see docs/invoice-documents.md); otherwise it is given on top. `request` is what was asked for, to tell
    a repetition from another note under the same `idempotency_key`.
    """

    __tablename__ = "credit_notes"
    __table_args__ = (
        UniqueConstraint("invoice_id", "idempotency_key"),
        CheckConstraint("reason IN ('correction', 'dispute', 'goodwill')", name="reason"),
        CheckConstraint("(reason = 'dispute') = (dispute_id IS NOT NULL)", name="dispute_id"),
        CheckConstraint("reason <> 'correction' OR lowers_billed", name="correction"),
        CheckConstraint("reason <> 'goodwill' OR NOT lowers_billed", name="goodwill"),
        CheckConstraint("total_minor > 0", name="above_nothing"),
        CheckConstraint("subtotal_minor > 0 AND tax_minor >= 0", name="parts"),
        CheckConstraint("total_minor = subtotal_minor - discount_minor + tax_minor", name="total_minor"),
        CheckConstraint("to_due_minor >= 0 AND to_balance_minor >= 0 AND to_outside_minor >= 0", name="ways"),
        CheckConstraint("total_minor = to_due_minor + to_balance_minor + to_outside_minor", name="where_it_went"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        Index(None, "account_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(unique=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    reason: Mapped[str]
    dispute_id: Mapped[str | None] = mapped_column(ForeignKey("disputes.id"))
    note: Mapped[str] = mapped_column(default="", server_default="")
    lowers_billed: Mapped[bool]
    currency: Mapped[str]
    subtotal_minor: Mapped[int] = mapped_column(BigInteger)
    discount_minor: Mapped[int] = mapped_column(BigInteger)
    tax_minor: Mapped[int] = mapped_column(BigInteger)
    total_minor: Mapped[int] = mapped_column(BigInteger)
    to_due_minor: Mapped[int] = mapped_column(BigInteger)
    to_balance_minor: Mapped[int] = mapped_column(BigInteger)
    to_outside_minor: Mapped[int] = mapped_column(BigInteger)
    taxes: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    seller: Mapped[dict[str, Any] | None]
    buyer: Mapped[dict[str, Any] | None]
    idempotency_key: Mapped[str]
    request: Mapped[dict[str, Any]]
    author: Mapped[str]
    created_at: Mapped[datetime]

    lines: Mapped[list["CreditNoteLine"]] = relationship(lazy="raise", order_by="CreditNoteLine.position")


class CreditNoteLine(Base):
    """One amount taken back, before discount and tax, of a line of the invoice or of none.

    Below 0 where an invoice that gave something back by one of its lines is taken back whole.
    """

    __tablename__ = "credit_note_lines"
    __table_args__ = (
        UniqueConstraint("credit_note_id", "position"),
        CheckConstraint("amount_minor <> 0", name="amount_minor"),
        Index(None, "invoice_line_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    credit_note_id: Mapped[str] = mapped_column(ForeignKey("credit_notes.id"))
    position: Mapped[int]
    invoice_line_id: Mapped[str | None] = mapped_column(ForeignKey("invoice_lines.id"))
    description: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
