"""Billing profiles."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class BillingProfileRow(Base):
    """What invoices of an account say of the buyer; see `model.BillingProfile`."""

    __tablename__ = "billing_profiles"
    __table_args__ = (
        CheckConstraint("char_length(legal_name) BETWEEN 1 AND 200", name="legal_name"),
        CheckConstraint("country = '' OR country ~ '^[A-Z]{2}$'", name="country"),
        CheckConstraint("tax_treatment IN ('standard', 'exempt', 'reverse_charge')", name="tax_treatment"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    legal_name: Mapped[str]
    address_lines: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    postal_code: Mapped[str] = mapped_column(default="", server_default="")
    city: Mapped[str] = mapped_column(default="", server_default="")
    region: Mapped[str] = mapped_column(default="", server_default="")
    country: Mapped[str] = mapped_column(default="", server_default="")
    tax_id: Mapped[str] = mapped_column(default="", server_default="")
    invoice_email: Mapped[str] = mapped_column(default="", server_default="")
    tax_treatment: Mapped[str] = mapped_column(default="standard", server_default="standard")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
