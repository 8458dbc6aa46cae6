"""Customers, checkouts, subscriptions and their items as Stripe holds them, and what is wanted of Stripe.

What comes from Stripe is written by reading the object again, never from an event's payload; `read_at` was taken
before the request, and an earlier reading never overwrites a later one.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Numeric, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base

UNFINISHED = "state IN ('wanted', 'asked')"
OPEN_CHECKOUT_STATES = ("wanted", "open")
OPEN_CHECKOUT = "state IN ('wanted', 'open')"
OPEN_CHANGE = "state IN ('wanted', 'asked', 'pending')"


class StripeCustomer(Base):
    """The customer that Stripe knows an account as. The row is there before Stripe is asked to make it.

    `digest` is of what Stripe was told last (name, e-mail address, address, tax id), at `told_at`; `tax_id` is
    Stripe's id of the tax id that we gave it. `balance_minor` is Stripe's: below zero it is a credit. `attempt`
    numbers the idempotency keys; `asked_at` is when the customer was asked for first.
    """

    __tablename__ = "stripe_customers"
    __table_args__ = (
        CheckConstraint("attempt >= 1", name="attempt"),
        Index("ix_stripe_customers_told_at", "told_at", postgresql_where=text("deleted_at IS NULL")),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    customer_id: Mapped[str | None] = mapped_column(unique=True)
    digest: Mapped[str] = mapped_column(default="", server_default="")
    tax_id: Mapped[str | None]
    problem: Mapped[str] = mapped_column(default="", server_default="")
    attempt: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    balance_minor: Mapped[int | None] = mapped_column(BigInteger)
    balance_currency: Mapped[str | None]
    created_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]
    told_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


class StripeSubscription(Base):
    """What Stripe said of a subscription when it was read last. `subscription_id` is ours.

    `plan_version_id` is the plan that its items are of, None where they are of no single one. Periods and moments
    are Stripe's, to the second; ours begin at full hours. `setup_fee_at`: when its setup fee was charged or
    planned.
    """

    __tablename__ = "stripe_subscriptions"
    __table_args__ = (
        CheckConstraint(
            "status IN ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid',"
            " 'canceled', 'paused')",
            name="status",
        ),
        Index(None, "customer_id"),
        Index(None, "account_id"),
        Index(None, "schedule_id"),
        Index(
            "ix_stripe_subscriptions_live",
            "read_at",
            postgresql_where=text("status NOT IN ('canceled', 'incomplete_expired')"),
        ),
    )

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    stripe_id: Mapped[str] = mapped_column(unique=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    customer_id: Mapped[str]
    status: Mapped[str]
    currency: Mapped[str]
    plan_version_id: Mapped[str | None] = mapped_column(ForeignKey("plan_versions.id"))
    started_at: Mapped[datetime]
    billing_cycle_anchor: Mapped[datetime]
    current_period_start: Mapped[datetime]
    current_period_end: Mapped[datetime]
    trial_end: Mapped[datetime | None]
    cancel_at_period_end: Mapped[bool]
    cancel_at: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    schedule_id: Mapped[str | None]
    latest_invoice_id: Mapped[str | None]
    pending_update_until: Mapped[datetime | None]
    automatic_tax: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    setup_fee_at: Mapped[datetime | None]
    problem: Mapped[str] = mapped_column(default="", server_default="")
    read_at: Mapped[datetime]
    created_at: Mapped[datetime]


class StripeSubscriptionItem(Base):
    """An item that a subscription has at Stripe now. `quantity` None: metered."""

    __tablename__ = "stripe_subscription_items"
    __table_args__ = (Index(None, "stripe_id"), Index(None, "price_id"))

    item_id: Mapped[str] = mapped_column(primary_key=True)
    stripe_id: Mapped[str] = mapped_column(ForeignKey("stripe_subscriptions.stripe_id"))
    price_id: Mapped[str]
    quantity: Mapped[int | None]
    plan_version_id: Mapped[str | None] = mapped_column(ForeignKey("plan_versions.id"))
    current_period_start: Mapped[datetime]
    current_period_end: Mapped[datetime]


class StripeSpan(Base):
    """From when on Stripe has a subscription on a plan version (`starts_at`, Stripe's moment), to the next span.

    `ours_from` is the moment from which ours is on it: a phase belongs to the last span with `ours_from` at or
    before the phase's start, and its usage goes to Stripe with moments inside that span.
    """

    __tablename__ = "stripe_spans"
    __table_args__ = (Index(None, "subscription_id", "ours_from"),)

    subscription_id: Mapped[str] = mapped_column(
        ForeignKey("stripe_subscriptions.subscription_id"), primary_key=True
    )
    starts_at: Mapped[datetime] = mapped_column(primary_key=True)
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    ours_from: Mapped[datetime]


class StripeCoupon(Base):
    """A coupon of ours as Stripe has it. Periods are months at Stripe, so yearly plans have one of their own."""

    __tablename__ = "stripe_coupons"
    __table_args__ = (CheckConstraint("interval IN ('month', 'year')", name="interval"),)

    coupon_id: Mapped[str] = mapped_column(ForeignKey("coupons.id"), primary_key=True)
    interval: Mapped[str] = mapped_column(primary_key=True)
    stripe_coupon_id: Mapped[str] = mapped_column(unique=True)
    made_at: Mapped[datetime]


class StripeDiscount(Base):
    """A discount that a subscription has at Stripe, or had. [starts_at, ends_at); None: for ever.

    `coupon_id` is ours, None for coupons that were not made by us. `duration` is Stripe's: once, repeating or
    forever.
    """

    __tablename__ = "stripe_discounts"
    __table_args__ = (
        CheckConstraint("(percent IS NULL) <> (amount_minor IS NULL)", name="percent_or_amount"),
        Index(None, "subscription_id"),
    )

    discount_id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("stripe_subscriptions.subscription_id"))
    item_id: Mapped[str | None]
    stripe_coupon_id: Mapped[str]
    coupon_id: Mapped[str | None] = mapped_column(ForeignKey("coupons.id"))
    percent: Mapped[Decimal | None] = mapped_column(Numeric(7, 4))
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    duration: Mapped[str]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]


class StripeCheckout(Base):
    """A first purchase: wanted, open at Stripe, then completed, expired or refused. Its URL is never kept.

    `trial_ends_at`: a full hour. A discount's limits count open checkouts, so that Stripe never gives more than
    there are. One is open for each account and API product.
    """

    __tablename__ = "stripe_checkouts"
    __table_args__ = (
        CheckConstraint("state IN ('wanted', 'open', 'completed', 'expired', 'refused')", name="state"),
        CheckConstraint("state <> 'open' OR session_id IS NOT NULL", name="session_id"),
        CheckConstraint("state <> 'completed' OR subscription_id IS NOT NULL", name="subscription_id"),
        Index(
            "uq_stripe_checkouts_open",
            "account_id",
            "api_product_id",
            unique=True,
            postgresql_where=text(OPEN_CHECKOUT),
        ),
        Index("ix_stripe_checkouts_unfinished", "next_try_at", postgresql_where=text(OPEN_CHECKOUT)),
        Index(None, "account_id", "id"),
        Index(None, "stripe_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    api_product_id: Mapped[str] = mapped_column(ForeignKey("api_products.id"))
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    currency: Mapped[str]
    state: Mapped[str]
    trial_ends_at: Mapped[datetime | None]
    trial_days: Mapped[int | None]
    coupon_id: Mapped[str | None] = mapped_column(ForeignKey("coupons.id"))
    promotion_code_id: Mapped[str | None] = mapped_column(ForeignKey("promotion_codes.id"))
    founding_offer_id: Mapped[str | None] = mapped_column(ForeignKey("founding_offers.id"))
    success_url: Mapped[str]
    cancel_url: Mapped[str]
    session_id: Mapped[str | None] = mapped_column(unique=True)
    stripe_id: Mapped[str | None]
    subscription_id: Mapped[str | None] = mapped_column(ForeignKey("subscriptions.id"))
    attempt: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    problem_code: Mapped[str] = mapped_column(default="", server_default="")
    problem: Mapped[str] = mapped_column(default="", server_default="")
    requested_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    next_try_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class StripeChange(Base):
    """What is wanted of a subscription at Stripe: written first, asked for next, done when Stripe shows it.

    `wanted` is what the change comes to (see `changes`), not what was typed. `pending`: Stripe waits for a
    payment, and nothing has changed yet. `scheduled`: Stripe has it planned for `effective_at`. One is open at a
    time for each subscription. `attempt` numbers the idempotency keys; a worker takes it up at `next_try_at`.
    """

    __tablename__ = "stripe_changes"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('update', 'schedule', 'withdraw', 'cancel', 'cancel_now', 'keep',"
            " 'end_trial', 'extend_trial', 'discount', 'begin')",
            name="kind",
        ),
        CheckConstraint(
            "state IN ('wanted', 'asked', 'pending', 'scheduled', 'done', 'refused', 'withdrawn')", name="state"
        ),
        CheckConstraint("state <> 'refused' OR problem_code <> ''", name="problem_code"),
        CheckConstraint("attempt >= 1", name="attempt"),
        Index("uq_stripe_changes_open", "subscription_id", unique=True, postgresql_where=text(OPEN_CHANGE)),
        Index("ix_stripe_changes_unfinished", "next_try_at", postgresql_where=text(OPEN_CHANGE)),
        Index(None, "subscription_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("stripe_subscriptions.subscription_id"))
    kind: Mapped[str]
    wanted: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    tries: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    problem_code: Mapped[str] = mapped_column(default="", server_default="")
    problem: Mapped[str] = mapped_column(default="", server_default="")
    schedule_id: Mapped[str | None]
    requested_by: Mapped[str]
    created_at: Mapped[datetime]
    effective_at: Mapped[datetime | None]
    next_try_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class StripeBalanceCredit(Base):
    """A credit of ours that is moved to the customer's balance at Stripe, where its invoices use it up.

    `source` says what it is for (`referral:acc_...`) and makes it one. `amount_minor` is above zero; at Stripe a
    credit is below.
    """

    __tablename__ = "stripe_balance_credits"
    __table_args__ = (
        CheckConstraint("state IN ('wanted', 'asked', 'done', 'refused')", name="state"),
        CheckConstraint("amount_minor > 0", name="amount_minor"),
        CheckConstraint("state <> 'done' OR transaction_id IS NOT NULL", name="transaction_id"),
        Index(None, "account_id"),
        Index("ix_stripe_balance_credits_unfinished", "next_try_at", postgresql_where=text(UNFINISHED)),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    source: Mapped[str] = mapped_column(unique=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    reason: Mapped[str]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    problem: Mapped[str] = mapped_column(default="", server_default="")
    transaction_id: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
