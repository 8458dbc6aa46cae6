"""Entries of accounts' balances, and the sums."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class AccountBalance(Base):
    """The sum of an account's entries in one currency: whoever adds one locks this row first."""

    __tablename__ = "account_balances"
    __table_args__ = (
        CheckConstraint("amount_minor >= 0", name="amount_minor"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    currency: Mapped[str] = mapped_column(primary_key=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)


class BalanceEntry(Base):
    """One addition (above 0) or withdrawal (below 0). The database refuses to change or delete one.

    `kind`: an `invoice` paid from the balance or, with a negative total, added to it; `void`: the opposite, of an
    invoice that was made void; a `credit_note`; a `surplus` of a payment; a `payment` of an open invoice from the
    balance; an `adjustment` by a person. `sum_minor` is the balance right after it.
    """

    __tablename__ = "balance_entries"
    __table_args__ = (
        CheckConstraint("amount_minor <> 0", name="amount_minor"),
        CheckConstraint("sum_minor >= 0", name="sum_minor"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint(
            "kind IN ('invoice', 'void', 'credit_note', 'surplus', 'payment', 'adjustment')", name="kind"
        ),
        CheckConstraint(
            "kind NOT IN ('invoice', 'void', 'surplus', 'payment') OR invoice_id IS NOT NULL", name="invoice_id"
        ),
        CheckConstraint("(kind = 'credit_note') = (credit_note_id IS NOT NULL)", name="credit_note_id"),
        Index("ix_balance_entries_account_id", "account_id", "id"),
        Index(
            "uq_balance_entries_invoice",
            "invoice_id",
            "kind",
            unique=True,
            postgresql_where=text("kind IN ('invoice', 'void')"),
        ),
        Index(
            "uq_balance_entries_credit_note",
            "credit_note_id",
            unique=True,
            postgresql_where=text("credit_note_id IS NOT NULL"),
        ),
        Index(
            "uq_balance_entries_idempotency_key",
            "account_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    currency: Mapped[str]
    kind: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    sum_minor: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(default="", server_default="")
    invoice_id: Mapped[str | None] = mapped_column(ForeignKey("invoices.id"))
    credit_note_id: Mapped[str | None] = mapped_column(ForeignKey("credit_notes.id"))
    idempotency_key: Mapped[str | None]
    author: Mapped[str]
    created_at: Mapped[datetime]
