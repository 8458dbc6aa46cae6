"""Invoices, their lines, their numbers, and how far each subscription is billed."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Numeric, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.foundation.db import Base


class Invoice(Base):
    """What an account owes. A draft changes until it is finalised; then it has a number, and is final.

    Amounts are minor units. `subtotal_minor` is the sum of the lines, `discount_minor` what discounts take off it
    (below zero where a credited line gives its discount back),
    `total_minor` = subtotal - discount + tax, negative where more is given back than charged. Prepaid credits and
    the account's balance pay (`credits_applied_minor`, `balance_applied_minor`; a negative total is added to the
    balance, as a negative `balance_applied_minor`); what is left is `amount_due_minor`. Credit notes take
    `credited_minor` off. A trigger refuses any change to a final invoice but of `status`, `amount_paid_minor`,
    `credited_minor`, `paid_at` and `voided_at`. A subscription has one draft at most (by hand: more).

    `period_start` and `period_end`: the period whose usage it bills, or that it was made in. `draft_digest` tells
    whether a draft's lines are still the ones that are due.
    `discounts`: [{"discount_id", "description", "amount_minor"}]; `taxes`: [{"name", "percent", "taxable_minor",
    "amount_minor"}]; `seller` and `buyer` are written down when it is finalised.
    """

    __tablename__ = "invoices"
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'open', 'paid', 'void', 'uncollectible')", name="status"),
        CheckConstraint("reason IN ('start', 'period', 'change', 'final', 'manual')", name="reason"),
        CheckConstraint("(status = 'draft') = (finalised_at IS NULL)", name="finalised_at"),
        CheckConstraint("(status = 'draft') = (number IS NULL)", name="number"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("total_minor = subtotal_minor - discount_minor + tax_minor", name="total_minor"),
        CheckConstraint(
            "amount_due_minor = total_minor - credits_applied_minor - balance_applied_minor",
            name="amount_due_minor",
        ),
        CheckConstraint("status = 'draft' OR amount_due_minor >= 0", name="amount_due_not_negative"),
        CheckConstraint("credits_applied_minor >= 0", name="credits_applied_minor"),
        CheckConstraint("amount_paid_minor >= 0 AND credited_minor >= 0", name="paid_and_credited"),
        Index("ix_invoices_account_id", "account_id", "created_at"),
        Index("ix_invoices_created_at", "created_at", "id"),
        Index("ix_invoices_subscription_id", "subscription_id", "period_start"),
        Index(
            "uq_invoices_draft",
            "subscription_id",
            unique=True,
            postgresql_where=text("status = 'draft' AND reason <> 'manual'"),
        ),
        Index("ix_invoices_due_at", "due_at", postgresql_where=text("status = 'open'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    subscription_id: Mapped[str | None] = mapped_column(ForeignKey("subscriptions.id"))
    number: Mapped[str | None] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(default="draft", server_default="draft")
    reason: Mapped[str]
    currency: Mapped[str]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    subtotal_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    discount_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    tax_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    total_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    credits_applied_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    balance_applied_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    amount_due_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    amount_paid_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    credited_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    discounts: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    taxes: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    seller: Mapped[dict[str, Any] | None]
    buyer: Mapped[dict[str, Any] | None]
    note: Mapped[str] = mapped_column(default="", server_default="")
    draft_digest: Mapped[str | None]
    usage_as_of: Mapped[datetime | None]
    created_at: Mapped[datetime]
    finalise_at: Mapped[datetime | None]
    finalised_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    paid_at: Mapped[datetime | None]
    voided_at: Mapped[datetime | None]

    lines: Mapped[list["InvoiceLine"]] = relationship(
        lazy="raise", order_by="InvoiceLine.position", back_populates="invoice"
    )


class InvoiceLine(Base):
    """One amount, and how it came about.

    `charge_key` names what is charged within a subscription and billing period (see `due`): the lines of one key
    add up to what is due for it. `kind`: see `model.LineKind`. `exact_amount` (major unit) was rounded once, half
    up; of a line that corrects earlier ones, `details` says what was billed before, and of one with discounts what
    they took off it (`discount_minor`, as of when it became final). `tiers`: as in previews.
    `corrected_minor` is what correcting credit notes took back of it: `amount_minor - corrected_minor` counts as
    billed. Lines of a final invoice never change otherwise; a trigger refuses it.
    """

    __tablename__ = "invoice_lines"
    __table_args__ = (
        UniqueConstraint("invoice_id", "position"),
        CheckConstraint(
            "kind IN ('recurring', 'usage', 'setup_fee', 'commitment', 'credit_purchase', 'manual')", name="kind"
        ),
        CheckConstraint(
            "corrected_minor BETWEEN least(amount_minor, 0) AND greatest(amount_minor, 0)", name="corrected_minor"
        ),
        Index("ix_invoice_lines_billed", "subscription_id", "period_start"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id", ondelete="CASCADE"))
    position: Mapped[int]
    kind: Mapped[str]
    subscription_id: Mapped[str | None] = mapped_column(ForeignKey("subscriptions.id"))
    charge_key: Mapped[str] = mapped_column(default="", server_default="")
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    plan_version_id: Mapped[str | None] = mapped_column(ForeignKey("plan_versions.id"))
    description: Mapped[str]
    formula: Mapped[str] = mapped_column(default="", server_default="")
    meter: Mapped[str | None]
    used_units: Mapped[int | None] = mapped_column(BigInteger)
    quantity: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))
    unit_amount: Mapped[Decimal | None] = mapped_column(Numeric)
    exact_amount: Mapped[Decimal] = mapped_column(Numeric)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    corrected_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    tiers: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))

    invoice: Mapped[Invoice] = relationship(lazy="raise", back_populates="lines")


class InvoiceNumbers(Base):
    """The next number of each series (`INV`, `CN`), taken under the row's lock, so that none is left out."""

    __tablename__ = "invoice_numbers"
    __table_args__ = (CheckConstraint("next_number >= 1", name="next_number"),)

    series: Mapped[str] = mapped_column(primary_key=True)
    next_number: Mapped[int] = mapped_column(BigInteger, default=1, server_default=text("1"))


class SubscriptionBilling(Base):
    """When billing looks at a subscription next (`look_at`; NULL: never again), and how far it is billed.

    Usage before `usage_billed_until` was billed once; what changes later is found by `BilledPeriod`.
    """

    __tablename__ = "subscription_billing"
    __table_args__ = (
        # in the order in which they are claimed: where all are due at once, no batch sorts them all
        Index(
            "ix_subscription_billing_look_at",
            "look_at",
            "subscription_id",
            postgresql_where=text("look_at IS NOT NULL"),
        ),
    )

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    look_at: Mapped[datetime | None]
    usage_billed_until: Mapped[datetime]


class BilledPeriod(Base):
    """A billing period whose usage was billed, with all that was sealed of it by `usage_as_of`, or more.

    `changed_at`: since then it is known that something may be due that was not billed (usage sealed later, an
    invoice made void); the subscription's next invoice bills the difference. `invoice_id`: the last that billed
    the period.
    """

    __tablename__ = "billed_periods"
    __table_args__ = (
        CheckConstraint("period_end > period_start", name="period"),
        Index(
            "ix_billed_periods_changed",
            "subscription_id",
            postgresql_where=text("changed_at IS NOT NULL"),
        ),
    )

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    period_end: Mapped[datetime]
    usage_as_of: Mapped[datetime]
    invoice_id: Mapped[str | None] = mapped_column(ForeignKey("invoices.id"))
    closed_at: Mapped[datetime]
    changed_at: Mapped[datetime | None]


class BillingWatermark(Base):
    """How far a round of billing has read what others wrote: `late_usage` the ledger of sealed usage."""

    __tablename__ = "billing_watermarks"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen_until: Mapped[datetime]
