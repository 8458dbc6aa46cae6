"""Subscriptions and their phases.

A deferred trigger (see the first migration) keeps the phases of a subscription without gap or overlap.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.foundation.db import Base

LIVE = "status NOT IN ('canceled', 'ended')"


class Subscription(Base):
    """An account's right to call one API product.

    `anchor_at` sets where billing periods begin: always a full hour, so that no hour of usage straddles two
    periods. `ends_at` may lie ahead (cancelled at period end). `overrides`: {"windows"?, "quota_units"?,
    "quota_cap_units"?, "concurrency_limit"?, "earlier_quotas"?}. `spend_cap_minor`: the most to pay for a billing
    period, before tax; at `spend_cap_due_at` the gateway must be told of it anew (see `cap_renewal`).

    Periods follow the wall clock of `time_zone`, the account's when it subscribed. `trial_ends_at`: a trial ends
    where the first billed period begins, at the anchor; one that is ended early does within that period's first
    hour. `unused_time` says whether what was paid in advance for
    the time after a cancellation is kept or credited. `billed_by`: `own` invoices or `stripe`.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint(
            "status IN ('trialing', 'active', 'past_due', 'paused', 'canceled', 'ended')", name="status"
        ),
        CheckConstraint("interval IN ('month', 'year')", name="interval"),
        CheckConstraint("mod(extract(epoch FROM anchor_at), 3600) = 0", name="anchor_hour"),
        CheckConstraint("ends_at >= started_at", name="ends_at"),
        CheckConstraint(f"{LIVE} OR ends_at IS NOT NULL", name="over_has_end"),
        CheckConstraint("jsonb_typeof(overrides) = 'object'", name="overrides"),
        CheckConstraint("spend_cap_minor >= 0", name="spend_cap_minor"),
        CheckConstraint("status <> 'trialing' OR trial_ends_at IS NOT NULL", name="trial_ends_at"),
        CheckConstraint("unused_time IN ('kept', 'credited')", name="unused_time"),
        CheckConstraint("billed_by IN ('own', 'stripe')", name="billed_by"),
        CheckConstraint("(spend_cap_minor IS NULL) = (spend_cap_due_at IS NULL)", name="spend_cap_due_at"),
        Index(
            "uq_subscriptions_live",
            "account_id",
            "api_product_id",
            unique=True,
            postgresql_where=text(LIVE),
        ),
        Index("ix_subscriptions_trial_ending", "trial_ends_at", postgresql_where=text("status = 'trialing'")),
        Index("ix_subscriptions_ending", "ends_at", postgresql_where=text(f"{LIVE} AND ends_at IS NOT NULL")),
        Index(
            "ix_subscriptions_spend_cap_due",
            "spend_cap_due_at",
            postgresql_where=text(f"{LIVE} AND spend_cap_due_at IS NOT NULL"),
        ),
        Index("ix_subscriptions_past_due", "id", postgresql_where=text("status = 'past_due'")),
        Index(None, "account_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    api_product_id: Mapped[str] = mapped_column(ForeignKey("api_products.id"))
    status: Mapped[str]
    anchor_at: Mapped[datetime]
    interval: Mapped[str]
    time_zone: Mapped[str] = mapped_column(default="UTC", server_default="UTC")
    trial_ends_at: Mapped[datetime | None]
    unused_time: Mapped[str] = mapped_column(default="kept", server_default="kept")
    billed_by: Mapped[str] = mapped_column(default="own", server_default="own")
    started_at: Mapped[datetime]
    canceled_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    overrides: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    spend_cap_minor: Mapped[int | None] = mapped_column(BigInteger)
    spend_cap_due_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    phases: Mapped[list["SubscriptionPhase"]] = relationship(
        lazy="raise", order_by="SubscriptionPhase.starts_at", back_populates="subscription"
    )
    add_ons: Mapped[list["SubscriptionAddOn"]] = relationship(
        lazy="raise", order_by="SubscriptionAddOn.starts_at", back_populates="subscription"
    )


class PaymentHold(Base):
    """What holds at the gateway while a subscription is past due, in place of its own terms.

    `grace`: nothing yet. `block`: no calls. `free`: the limits and entitlements of `plan_version_id`. What is
    billed stays as it is. Without effect in any other status, and gone when `past_due` is left: so it tells
    whether a subscription was past due all the time since.
    """

    __tablename__ = "payment_holds"
    __table_args__ = (
        CheckConstraint("kind IN ('grace', 'block', 'free')", name="kind"),
        CheckConstraint("(kind = 'free') = (plan_version_id IS NOT NULL)", name="plan_version_id"),
    )

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    kind: Mapped[str]
    plan_version_id: Mapped[str | None] = mapped_column(ForeignKey("plan_versions.id"))
    since: Mapped[datetime]


class SubscriptionPhase(Base):
    """One plan version for [starts_at, ends_at). `applied_at` is when the gateway was told that it began.

    `kind`: `paid`; `trial` and `paused` phases cost nothing, and in a paused one no call is allowed. A change of
    add-ons cuts a phase in two of the same version, so that usage can be told apart.
    """

    __tablename__ = "subscription_phases"
    __table_args__ = (
        UniqueConstraint("subscription_id", "starts_at"),
        CheckConstraint("ends_at > starts_at", name="ends_at"),
        CheckConstraint("kind IN ('paid', 'trial', 'paused')", name="kind"),
        Index(
            "uq_subscription_phases_open",
            "subscription_id",
            unique=True,
            postgresql_where=text("ends_at IS NULL"),
        ),
        Index(
            "ix_subscription_phases_waiting",
            "starts_at",
            postgresql_where=text("applied_at IS NULL"),
        ),
        Index(None, "plan_version_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    applied_at: Mapped[datetime | None]
    kind: Mapped[str] = mapped_column(default="paid", server_default="paid")

    subscription: Mapped[Subscription] = relationship(lazy="raise", back_populates="phases")


class SubscriptionAddOn(Base):
    """`quantity` of one version of an add-on, beside the plan, for [starts_at, ends_at); None: until cancelled."""

    __tablename__ = "subscription_add_ons"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="ends_at"),
        CheckConstraint("quantity >= 1", name="quantity"),
        Index(None, "subscription_id"),
        Index(None, "plan_version_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    quantity: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    subscription: Mapped[Subscription] = relationship(lazy="raise", back_populates="add_ons")
