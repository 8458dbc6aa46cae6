"""Payments of invoices, and refunds."""

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, Date, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class InvoicePayment(Base):
    """Money that came in for an invoice (`payment`), was taken for it from the account's balance (`balance`), or
    was paid back (`refund`); `amount_minor` is above 0.

    `surplus_minor` of a payment is what it exceeded the amount due by: it went to the account's balance.
    """

    __tablename__ = "invoice_payments"
    __table_args__ = (
        UniqueConstraint("invoice_id", "kind", "reference"),
        CheckConstraint("kind IN ('payment', 'balance', 'refund')", name="kind"),
        CheckConstraint("amount_minor > 0", name="amount_minor"),
        CheckConstraint("surplus_minor >= 0 AND surplus_minor <= amount_minor", name="surplus_minor"),
        CheckConstraint("char_length(reference) BETWEEN 1 AND 200", name="reference"),
        Index(None, "account_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    kind: Mapped[str]
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    surplus_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    paid_on: Mapped[date] = mapped_column(Date)
    reference: Mapped[str]
    method: Mapped[str] = mapped_column(default="", server_default="")
    author: Mapped[str]
    created_at: Mapped[datetime]
