"""Stripe's invoices as last read, what we add to them, and what was expected of them. Amounts are minor units."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    UniqueConstraint,
    and_,
    not_,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.foundation.db import Base

ZERO = text("0")


class StripeInvoice(Base):
    """An invoice of Stripe's for one of our accounts, as it was at `read_at`; no earlier reading replaces it.

    `status` (also `deleted`), `billing_reason` and `collection` are Stripe's words. `subscription_id` is ours,
    NULL until its purchase was taken in. `finalizes_at`: when Stripe makes a draft final by itself (NULL: it does
    not). `period_start` and `period_end`: of the invoice, as Stripe has them; each line has its own.
    `balance_minor` of the customer's balance paid (below zero: was added to it). `discounts` and `taxes`:
    [{"name", "amount_minor"}]; `tax_minor` is what taxes add. `hosted_url`: where the customer sees and pays it.
    """

    __tablename__ = "stripe_invoices"
    __table_args__ = (
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        Index("ix_stripe_invoices_account_id", "account_id", "created_at", "id"),
        Index("ix_stripe_invoices_created_at", "created_at", "id"),
        Index("ix_stripe_invoices_subscription_id", "subscription_id", "created_at"),
        Index(
            "ix_stripe_invoices_unknown",
            "stripe_subscription_id",
            postgresql_where=text("subscription_id IS NULL AND stripe_subscription_id IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    subscription_id: Mapped[str | None] = mapped_column(ForeignKey("subscriptions.id"))
    stripe_subscription_id: Mapped[str | None]
    customer_id: Mapped[str]
    number: Mapped[str | None]
    status: Mapped[str]
    billing_reason: Mapped[str]
    collection: Mapped[str]
    currency: Mapped[str]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    subtotal_minor: Mapped[int] = mapped_column(BigInteger)
    discount_minor: Mapped[int] = mapped_column(BigInteger)
    tax_minor: Mapped[int] = mapped_column(BigInteger)
    total_minor: Mapped[int] = mapped_column(BigInteger)
    balance_minor: Mapped[int] = mapped_column(BigInteger)
    amount_due_minor: Mapped[int] = mapped_column(BigInteger)
    amount_paid_minor: Mapped[int] = mapped_column(BigInteger)
    amount_remaining_minor: Mapped[int] = mapped_column(BigInteger)
    credited_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    discounts: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    taxes: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    automatic_tax: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    auto_advance: Mapped[bool]
    attempt_count: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    finalizes_at: Mapped[datetime | None]
    finalised_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    paid_at: Mapped[datetime | None]
    voided_at: Mapped[datetime | None]
    hosted_url: Mapped[str | None]
    pdf_url: Mapped[str | None]
    finalization_error: Mapped[str | None]
    read_at: Mapped[datetime]

    lines: Mapped[list["StripeInvoiceLine"]] = relationship(
        lazy="raise", order_by="StripeInvoiceLine.position", cascade="all, delete-orphan"
    )
    payments: Mapped[list["StripePayment"]] = relationship(
        lazy="raise", order_by="StripePayment.created_at", cascade="all, delete-orphan"
    )


def is_charged() -> ColumnElement[bool]:
    """Return what picks invoices whose lines are charged. Void ones count: nobody charges them again.

    But a change that waits for its payment happens when its invoice is paid: where that is void it never did, and
    what its lines were for is on later invoices.
    """
    never_was = and_(StripeInvoice.status == "void", StripeInvoice.billing_reason == "subscription_update")
    return and_(StripeInvoice.status.not_in(("draft", "deleted")), not_(never_was))


class StripeInvoiceLine(Base):
    """A line of Stripe's.

    `charge_key`: the price that it is for, as `version/position`, '' where it is none of ours. `kind`: `flat`,
    `metered`, `setup_fee`, `proration`, `adjustment` (ours, see `StripeAdjustment`) or `other`.
    """

    __tablename__ = "stripe_invoice_lines"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('flat', 'metered', 'setup_fee', 'proration', 'adjustment', 'other')", name="kind"
        ),
        Index(None, "adjustment_id"),
    )

    invoice_id: Mapped[str] = mapped_column(ForeignKey("stripe_invoices.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    kind: Mapped[str]
    charge_key: Mapped[str] = mapped_column(default="", server_default="")
    description: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    discount_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=ZERO)
    quantity: Mapped[int | None] = mapped_column(BigInteger)
    price_id: Mapped[str | None]
    item_id: Mapped[str | None]
    invoice_item_id: Mapped[str | None]
    adjustment_id: Mapped[str | None]
    proration: Mapped[bool]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]


class StripePayment(Base):
    """A payment that Stripe counts towards an invoice. `reference`: its payment intent or charge."""

    __tablename__ = "stripe_payments"
    __table_args__ = (Index(None, "reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("stripe_invoices.id", ondelete="CASCADE"), index=True)
    status: Mapped[str]
    reference: Mapped[str | None]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]


class StripeCreditNote(Base):
    """A credit note of Stripe's on one of its invoices, by us or by hand. `adjustment_id`: why we made it."""

    __tablename__ = "stripe_credit_notes"
    __table_args__ = (Index(None, "account_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(index=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    number: Mapped[str | None]
    status: Mapped[str]
    reason: Mapped[str | None]
    memo: Mapped[str] = mapped_column(default="", server_default="")
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    adjustment_id: Mapped[str | None]
    pdf_url: Mapped[str | None]
    created_at: Mapped[datetime]
    read_at: Mapped[datetime]


class StripeDispute(Base):
    """A payment that the customer's bank asks back. `invoice_id`: what it had paid, NULL while not known."""

    __tablename__ = "stripe_disputes"

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    invoice_id: Mapped[str | None] = mapped_column(index=True)
    charge_id: Mapped[str | None]
    payment_intent_id: Mapped[str | None]
    status: Mapped[str]
    reason: Mapped[str]
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    evidence_due_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    read_at: Mapped[datetime]


class StripeInvoiceTask(Base):
    """What is still to be done with a draft of Stripe's before it may become final.

    `state`: `waiting` (for sealed hours and delivered usage), `adjusting` (its adjustments are decided and being
    put on it), `releasing` (held: we make it final ourselves), `done`, `late` (Stripe made it final before we
    were ready: what was missing goes to the next invoice) or `gone` (deleted or void). `held_at`: since then
    Stripe does not make it final by itself. `reason`: why it waits. `usage_as_of`: what was sealed by then is on
    the invoice.
    A worker takes the rows whose `look_at` has come, and every step can be done again.
    """

    __tablename__ = "stripe_invoice_tasks"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'adjusting', 'releasing', 'done', 'late', 'gone')", name="state"),
        Index("ix_stripe_invoice_tasks_look_at", "look_at", postgresql_where=text("look_at IS NOT NULL")),
        Index(None, "subscription_id", "period_start"),
    )

    invoice_id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    state: Mapped[str] = mapped_column(default="waiting", server_default="waiting")
    reason: Mapped[str] = mapped_column(default="", server_default="")
    attempts: Mapped[int] = mapped_column(default=0, server_default=ZERO)
    look_at: Mapped[datetime | None]
    held_at: Mapped[datetime | None]
    alarmed_at: Mapped[datetime | None]
    usage_as_of: Mapped[datetime | None]
    created_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


class StripeAdjustment(Base):
    """What Stripe's rating of a charge leaves to us, as an invoice item or a credit note; decided once, made once.

    `charge_key` ('': of the invoice as a whole): see `StripeInvoiceLine`. `period_start`: of our billing period.
    `cause`: `not_native` (Stripe cannot rate the price), `allowance` (an own quota or an add-on's), `late_usage`
    (usage that Stripe's invoice no longer took), `correction`, or by hand: `dispute`, `goodwill`. `way`: `item` on
    `invoice_id`, a draft; `credit_note` on `invoice_id`; or `written_off` (no invoice follows). `first_tried_at`:
    when Stripe was asked first; before it is asked again it is looked up there by its metadata. `edition` numbers
    the idempotency keys. `details`: due and billed amounts and units, and `item_minor`: what the item is, where
    discounts had their part in what it takes back.
    """

    __tablename__ = "stripe_adjustments"
    __table_args__ = (
        UniqueConstraint("subscription_id", "period_start", "charge_key", "turn"),
        CheckConstraint(
            "cause IN ('not_native', 'allowance', 'late_usage', 'correction', 'dispute', 'goodwill')", name="cause"
        ),
        CheckConstraint("way IN ('item', 'credit_note', 'written_off')", name="way"),
        CheckConstraint("state IN ('wanted', 'done', 'refused')", name="state"),
        CheckConstraint("amount_minor <> 0", name="amount_minor"),
        CheckConstraint("way <> 'credit_note' OR amount_minor < 0", name="credit_note"),
        Index("ix_stripe_adjustments_wanted", "id", postgresql_where=text("state = 'wanted'")),
        Index(None, "invoice_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    period_start: Mapped[datetime]
    charge_key: Mapped[str]
    turn: Mapped[int]
    cause: Mapped[str]
    way: Mapped[str]
    state: Mapped[str] = mapped_column(default="wanted", server_default="wanted")
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str]
    invoice_id: Mapped[str | None]
    stripe_id: Mapped[str | None] = mapped_column(unique=True)
    edition: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    first_tried_at: Mapped[datetime | None]
    refusal: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    created_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


class StripeInvoiceCheck(Base):
    """A final invoice of Stripe's against what was expected of it: after discounts, before tax and balance.

    `differences`: [{"what", "expected_minor", "actual_minor", "cause"}]; `agrees`: none but of rounding.
    `expected`: what it was compared with. `unknown`: what could not be expected (tax that Stripe reckons).
    """

    __tablename__ = "stripe_invoice_checks"
    __table_args__ = (
        Index("ix_stripe_invoice_checks_differ", "checked_at", postgresql_where=text("NOT agrees")),
        Index(None, "subscription_id"),
    )

    invoice_id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    expected_minor: Mapped[int] = mapped_column(BigInteger)
    actual_minor: Mapped[int] = mapped_column(BigInteger)
    agrees: Mapped[bool]
    differences: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    expected: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    unknown: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    checked_at: Mapped[datetime]
