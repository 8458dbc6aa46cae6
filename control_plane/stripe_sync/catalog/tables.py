"""What of the catalogue lies at Stripe, and what is still to be laid there.

A row is written when Stripe has the object; before that, what is wanted stands in `stripe_pushes`. `digest` is of
what was pushed, so that a later change of ours, or of somebody's at Stripe, shows.
"""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class StripeSetup(Base):
    """What belongs to the installation as a whole. `account_id` is Stripe's account that all ids are of."""

    __tablename__ = "stripe_setup"

    installation: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    live: Mapped[bool]
    webhook_endpoint_id: Mapped[str | None]
    thin_destination_id: Mapped[str | None]
    portal_configuration_id: Mapped[str | None]
    updated_at: Mapped[datetime]


class StripeProduct(Base):
    """The product of a plan or an add-on."""

    __tablename__ = "stripe_products"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"), primary_key=True)
    product_id: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]
    pushed_at: Mapped[datetime]


class StripeMeter(Base):
    """Stripe's meter for one of ours, for one API product."""

    __tablename__ = "stripe_meters"
    __table_args__ = (UniqueConstraint("api_product_id", "meter"),)

    meter_id: Mapped[str] = mapped_column(primary_key=True)
    api_product_id: Mapped[str] = mapped_column(ForeignKey("api_products.id"))
    meter: Mapped[str]
    event_name: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]
    pushed_at: Mapped[datetime]


class StripePrice(Base):
    """A price of a plan version in one currency; `position` is that of our price.

    A version all of whose prices our rating charges has a `carrier` of 0 at the position after the last: Stripe
    has no subscription without an item.
    """

    __tablename__ = "stripe_prices"
    __table_args__ = (
        UniqueConstraint("plan_version_id", "currency", "position"),
        CheckConstraint("position >= 0", name="position"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("kind IN ('flat', 'metered', 'setup_fee', 'carrier')", name="kind"),
        CheckConstraint("(kind = 'metered') = (meter_id IS NOT NULL)", name="meter_id"),
    )

    price_id: Mapped[str] = mapped_column(primary_key=True)
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    position: Mapped[int]
    currency: Mapped[str]
    kind: Mapped[str]
    product_id: Mapped[str] = mapped_column(ForeignKey("stripe_products.product_id"))
    meter_id: Mapped[str | None] = mapped_column(ForeignKey("stripe_meters.meter_id"), index=True)
    lookup_key: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]
    active: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    pushed_at: Mapped[datetime]


class StripePush(Base):
    """That a plan version is wanted at Stripe.

    `attempts` numbers the idempotency keys: one that Stripe failed under is spent. `failures` are those since the
    last success, and set the pace. `problem` is what Stripe, or what we, had against it.
    """

    __tablename__ = "stripe_pushes"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'pushed', 'refused')", name="state"),
        CheckConstraint("(state = 'pushed') = (pushed_at IS NOT NULL)", name="pushed_at"),
        CheckConstraint("attempts >= 0", name="attempts"),
        Index("ix_stripe_pushes_waiting", "next_try_at", postgresql_where=text("state = 'waiting'")),
    )

    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"), primary_key=True)
    state: Mapped[str] = mapped_column(default="waiting", server_default="waiting")
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    failures: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    problem: Mapped[str | None]
    wanted_at: Mapped[datetime]
    next_try_at: Mapped[datetime]
    pushed_at: Mapped[datetime | None]
