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
    "quota_cap_units"?, "concurrency_limit"?}. `spend_cap_minor`: the most to pay for a billing period, before tax;
    at `spend_cap_due_at` the gateway must be told of it anew (see `cap_renewal`).
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
        CheckConstraint("(spend_cap_minor IS NULL) = (spend_cap_due_at IS NULL)", name="spend_cap_due_at"),
        Index(
            "uq_subscriptions_live",
            "account_id",
            "api_product_id",
            unique=True,
            postgresql_where=text(LIVE),
        ),
        Index("ix_subscriptions_ending", "ends_at", postgresql_where=text(f"{LIVE} AND ends_at IS NOT NULL")),
        Index(
            "ix_subscriptions_spend_cap_due",
            "spend_cap_due_at",
            postgresql_where=text(f"{LIVE} AND spend_cap_due_at IS NOT NULL"),
        ),
        Index(None, "account_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    api_product_id: Mapped[str] = mapped_column(ForeignKey("api_products.id"))
    status: Mapped[str]
    anchor_at: Mapped[datetime]
    interval: Mapped[str]
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


class SubscriptionPhase(Base):
    """One plan version for [starts_at, ends_at). `applied_at` is when the gateway was told that it began."""

    __tablename__ = "subscription_phases"
    __table_args__ = (
        UniqueConstraint("subscription_id", "starts_at"),
        CheckConstraint("ends_at > starts_at", name="ends_at"),
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

    subscription: Mapped[Subscription] = relationship(lazy="raise", back_populates="phases")
