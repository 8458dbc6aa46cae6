"""Coupons, promotion codes, discounts and what they took off, founding members, referrals."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Numeric, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.catalog.tables import CODE_CHECK
from control_plane.foundation.db import Base

REDEEMED = "redemptions >= 0 AND (max_redemptions IS NULL OR redemptions <= max_redemptions)"


class Coupon(Base):
    """What can be taken off; see `model.CouponTerms`. A trigger refuses to change one that was redeemed.

    `redemptions` grows under the row's lock with every discount made of it, however it came about.
    """

    __tablename__ = "coupons"
    __table_args__ = (
        CheckConstraint(CODE_CHECK, name="code"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("(percent IS NULL) <> (amount_minor IS NULL)", name="percent_or_amount"),
        CheckConstraint("percent > 0 AND percent <= 100", name="percent"),
        CheckConstraint("amount_minor > 0", name="amount_minor"),
        CheckConstraint(
            "(amount_minor IS NULL) = (currency IS NULL) AND currency ~ '^[A-Z]{3}$'", name="currency"
        ),
        CheckConstraint("duration IN ('once', 'forever', 'periods', 'months')", name="duration"),
        CheckConstraint("(duration IN ('periods', 'months')) = (count IS NOT NULL) AND count >= 1", name="count"),
        CheckConstraint("scope IN ('all', 'fixed', 'usage')", name="scope"),
        CheckConstraint("max_redemptions >= 1", name="max_redemptions"),
        CheckConstraint(REDEEMED, name="redemptions"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    percent: Mapped[Decimal | None] = mapped_column(Numeric(7, 4))
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None]
    duration: Mapped[str]
    count: Mapped[int | None]
    scope: Mapped[str] = mapped_column(default="all", server_default="all")
    plan_codes: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    product_codes: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    max_redemptions: Mapped[int | None]
    redeem_until: Mapped[datetime | None]
    redemptions: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]


class PromotionCode(Base):
    """What people type to get a coupon; each account can have it once.

    `first_time_only`: accounts that have not paid an invoice yet. `minimum_minor`: what the plan must cost for a
    whole billing period, at least, before use.
    """

    __tablename__ = "promotion_codes"
    __table_args__ = (
        CheckConstraint("code ~ '^[A-Z0-9][A-Z0-9_-]{2,47}$'", name="code"),
        CheckConstraint("max_redemptions >= 1", name="max_redemptions"),
        CheckConstraint(REDEEMED, name="redemptions"),
        CheckConstraint(
            "(minimum_minor IS NULL) = (minimum_currency IS NULL) AND minimum_minor > 0", name="minimum_minor"
        ),
        Index(None, "coupon_id"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    coupon_id: Mapped[str] = mapped_column(ForeignKey("coupons.id"))
    max_redemptions: Mapped[int | None]
    redeem_until: Mapped[datetime | None]
    first_time_only: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    minimum_minor: Mapped[int | None] = mapped_column(BigInteger)
    minimum_currency: Mapped[str | None]
    redemptions: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]

    coupon: Mapped[Coupon] = relationship(lazy="raise")


class DiscountRow(Base):
    """A coupon on a subscription; see `model.Discount`. They apply in the order of `created_at`, then `id`.

    `ends_at` is NULL where months are counted from the end of a trial: it is then reckoned when it is read.

    `removed_at`: taken away before it took anything off, so it holds for nothing.
    """

    __tablename__ = "discounts"
    __table_args__ = (
        CheckConstraint("source IN ('coupon', 'promotion_code', 'founding')", name="source"),
        CheckConstraint("(source = 'promotion_code') = (promotion_code_id IS NOT NULL)", name="promotion_code_id"),
        Index(
            "uq_discounts_promotion_code",
            "promotion_code_id",
            "account_id",
            unique=True,
            postgresql_where=text("promotion_code_id IS NOT NULL"),
        ),
        Index(None, "subscription_id"),
        Index(None, "account_id"),
        Index(None, "coupon_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    coupon_id: Mapped[str] = mapped_column(ForeignKey("coupons.id"))
    promotion_code_id: Mapped[str | None] = mapped_column(ForeignKey("promotion_codes.id"))
    source: Mapped[str]
    holds_from: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    coupon: Mapped[Coupon] = relationship(lazy="raise")
    promotion_code: Mapped[PromotionCode | None] = relationship(lazy="raise")


class DiscountUse(Base):
    """What a discount took off one charge of a billing period on one final invoice; see `model.DiscountShare`.

    Less what correcting credit notes of the invoice took back of it.
    """

    __tablename__ = "discount_uses"
    __table_args__ = (Index(None, "invoice_id"),)

    discount_id: Mapped[str] = mapped_column(ForeignKey("discounts.id"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    charge_key: Mapped[str] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    base_minor: Mapped[int] = mapped_column(BigInteger)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    noted_at: Mapped[datetime]


class FoundingOffer(Base):
    """Who subscribes while it is open gets its coupon, once for each account; one is open at a time."""

    __tablename__ = "founding_offers"
    __table_args__ = (
        CheckConstraint("max_accounts >= 1", name="max_accounts"),
        CheckConstraint("state IN ('open', 'closed')", name="state"),
        CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed_at"),
        CheckConstraint("members >= 0 AND (max_accounts IS NULL OR members <= max_accounts)", name="members"),
        Index("uq_founding_offers_open", "state", unique=True, postgresql_where=text("state = 'open'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    coupon_id: Mapped[str] = mapped_column(ForeignKey("coupons.id"))
    state: Mapped[str] = mapped_column(default="open", server_default="open")
    max_accounts: Mapped[int | None]
    until: Mapped[datetime | None]
    members: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]

    coupon: Mapped[Coupon] = relationship(lazy="raise")


class FoundingMember(Base):
    """An account is a founding member once, for the subscription with which it became one."""

    __tablename__ = "founding_members"
    __table_args__ = (
        Index(None, "offer_id", "number", unique=True),
        CheckConstraint("number >= 1", name="number"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    offer_id: Mapped[str] = mapped_column(ForeignKey("founding_offers.id"))
    number: Mapped[int]
    discount_id: Mapped[str] = mapped_column(ForeignKey("discounts.id"))
    joined_at: Mapped[datetime]


class FirstPayment(Base):
    """The invoice, ours or Stripe's, that an account paid first with money of its own.

    Who has none is a first-time customer.
    """

    __tablename__ = "first_payments"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    invoice_id: Mapped[str]
    paid_at: Mapped[datetime]


class ReferralCode(Base):
    """What an account gives to those whom it brings."""

    __tablename__ = "referral_codes"
    __table_args__ = (CheckConstraint("code ~ '^[A-Z0-9]{8}$'", name="code"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]


class ReferralReward(Base):
    """What bringing an account is worth to referrers who pay in a currency."""

    __tablename__ = "referral_rewards"
    __table_args__ = (
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("amount_minor > 0", name="amount_minor"),
    )

    currency: Mapped[str] = mapped_column(primary_key=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime]


class Referral(Base):
    """Who brought an account, and what that is worth: promised when it was brought, paid with its first payment.

    `state`: `pending`; `rewarded`; `forfeited` where the referrer was deleted by then.
    """

    __tablename__ = "referrals"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'rewarded', 'forfeited')", name="state"),
        CheckConstraint("(state = 'pending') = (settled_at IS NULL)", name="settled_at"),
        CheckConstraint("(state = 'pending') = (invoice_id IS NULL)", name="invoice_id"),
        CheckConstraint("referrer_id <> account_id", name="referrer_id"),
        CheckConstraint("reward_minor > 0", name="reward_minor"),
        Index(None, "referrer_id"),
        Index(None, "created_at", "account_id"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    referrer_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    state: Mapped[str] = mapped_column(default="pending", server_default="pending")
    reward_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    invoice_id: Mapped[str | None]
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
