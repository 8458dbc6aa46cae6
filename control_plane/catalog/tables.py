"""API products, plans, plan versions and prices.

A trigger (see the first migration) refuses any change to a version that was published, and to its prices;
only the step from `published` to `superseded` is open.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.foundation.db import Base
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS

CODE_CHECK = "code ~ '^[a-z][a-z0-9_-]{0,47}$'"


class ApiProduct(Base):
    """What is sold: routes of one Kong service. `route_units` are quota units of a call, by route name."""

    __tablename__ = "api_products"
    __table_args__ = (
        CheckConstraint(CODE_CHECK, name="code"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("cardinality(routes) >= 1", name="routes"),
        CheckConstraint(
            "CASE WHEN jsonb_typeof(endpoints) = 'array' THEN jsonb_array_length(endpoints) <= 500 ELSE false END",
            name="endpoints",
        ),
        CheckConstraint("jsonb_typeof(route_units) = 'object'", name="route_units"),
        CheckConstraint("jsonb_typeof(unit_headers) = 'object'", name="unit_headers"),
        CheckConstraint("jsonb_typeof(unit_maximums) = 'object'", name="unit_maximums"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="", server_default="")
    service: Mapped[str]
    routes: Mapped[list[str]]
    endpoints: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    route_units: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    unit_headers: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    unit_maximums: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    replay_header: Mapped[str] = mapped_column(
        default=DEFAULT_REPLAY_HEADERS[0], server_default=DEFAULT_REPLAY_HEADERS[0]
    )
    openapi_document: Mapped[str | None]
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]

    @property
    def has_openapi_document(self) -> bool:
        """Say whether the endpoints come from a stored OpenAPI document."""
        return self.openapi_document is not None


class Plan(Base):
    """A named offer on one API product, a plan or an add-on; its terms are in its versions."""

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint(CODE_CHECK, name="code"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("visibility IN ('public', 'hidden')", name="visibility"),
        CheckConstraint("kind IN ('plan', 'add_on')", name="kind"),
        Index(
            "uq_plans_recommended",
            "api_product_id",
            unique=True,
            postgresql_where=text("recommended AND archived_at IS NULL"),
        ),
        Index(None, "api_product_id", "position"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    api_product_id: Mapped[str] = mapped_column(ForeignKey("api_products.id"))
    position: Mapped[int]
    visibility: Mapped[str] = mapped_column(default="public", server_default="public")
    recommended: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    description: Mapped[str] = mapped_column(default="", server_default="")
    kind: Mapped[str] = mapped_column(default="plan", server_default="plan")
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]

    api_product: Mapped[ApiProduct] = relationship(lazy="raise")


class PlanVersion(Base):
    """The terms a subscription pins. `windows`: [{"limit", "window_ms"}]; `billable_statuses`: {"below": 500}."""

    __tablename__ = "plan_versions"
    __table_args__ = (
        UniqueConstraint("plan_id", "version"),
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("status IN ('draft', 'published', 'superseded')", name="status"),
        CheckConstraint("(status = 'draft') = (published_at IS NULL)", name="published_at"),
        CheckConstraint("interval IN ('month', 'year')", name="interval"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("quota_units > 0", name="quota_units"),
        CheckConstraint("quota_units IS NOT NULL OR NOT quota_hard", name="quota_hard"),
        CheckConstraint(
            "quota_cap_units IS NULL OR (NOT quota_hard AND coalesce(quota_cap_units > quota_units, false))",
            name="quota_cap_units",
        ),
        CheckConstraint("jsonb_typeof(windows) = 'array'", name="windows"),
        CheckConstraint("concurrency_limit > 0", name="concurrency_limit"),
        CheckConstraint(
            "(concurrency_limit IS NULL) = (concurrency_lease_ms IS NULL) AND concurrency_lease_ms > 0",
            name="concurrency_lease_ms",
        ),
        CheckConstraint("on_past_due IN ('serve', 'refuse')", name="on_past_due"),
        CheckConstraint("redis_down IN ('open', 'closed')", name="redis_down"),
        CheckConstraint("event_retention_days BETWEEN 90 AND 3660", name="event_retention_days"),
        CheckConstraint("trial_days BETWEEN 1 AND 365", name="trial_days"),
        CheckConstraint("after_trial IN ('continue', 'cancel')", name="after_trial"),
        CheckConstraint("quota_on_change IN ('full', 'carry', 'prorated')", name="quota_on_change"),
        CheckConstraint("payment IN ('invoice', 'prepaid')", name="payment"),
        CheckConstraint("billed_by IN ('own', 'stripe')", name="billed_by"),
        Index("uq_plan_versions_published", "plan_id", unique=True, postgresql_where=text("status = 'published'")),
        Index("uq_plan_versions_draft", "plan_id", unique=True, postgresql_where=text("status = 'draft'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    version: Mapped[int]
    status: Mapped[str] = mapped_column(default="draft", server_default="draft")
    interval: Mapped[str]
    currency: Mapped[str]
    quota_units: Mapped[int | None] = mapped_column(BigInteger)
    quota_hard: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    quota_cap_units: Mapped[int | None] = mapped_column(BigInteger)
    windows: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    concurrency_limit: Mapped[int | None]
    concurrency_lease_ms: Mapped[int | None]
    entitlements: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    redis_down: Mapped[str] = mapped_column(default="open", server_default="open")
    on_past_due: Mapped[str] = mapped_column(default="serve", server_default="serve")
    billable_statuses: Mapped[dict[str, Any] | None]
    event_retention_days: Mapped[int | None]
    by_quote: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    trial_days: Mapped[int | None]
    after_trial: Mapped[str] = mapped_column(default="continue", server_default="continue")
    quota_on_change: Mapped[str] = mapped_column(default="full", server_default="full")
    payment: Mapped[str] = mapped_column(default="invoice", server_default="invoice")
    billed_by: Mapped[str] = mapped_column(default="own", server_default="own")
    features: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    sla_level: Mapped[str | None]
    support_level: Mapped[str | None]
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]

    plan: Mapped[Plan] = relationship(lazy="raise")
    prices: Mapped[list["Price"]] = relationship(
        lazy="raise", order_by="Price.position", back_populates="plan_version"
    )


class Price(Base):
    """One component of a version's price; `params` holds amounts as decimal strings (see catalog.model).

    A version sold in several currencies has one row for each component (`position`) and currency.
    """

    __tablename__ = "prices"
    __table_args__ = (
        UniqueConstraint("plan_version_id", "currency", "position"),
        CheckConstraint("position >= 0", name="position"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint(
            "model IN ('flat', 'setup_fee', 'commitment', 'per_unit', 'overage', 'graduated', 'volume', "
            "'package', 'percentage')",
            name="model",
        ),
        CheckConstraint("(model IN ('flat', 'setup_fee', 'commitment')) = (meter IS NULL)", name="meter"),
        CheckConstraint("jsonb_typeof(params) = 'object'", name="params"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_versions.id"))
    position: Mapped[int]
    currency: Mapped[str]
    model: Mapped[str]
    meter: Mapped[str | None]
    params: Mapped[dict[str, Any]]
    description: Mapped[str] = mapped_column(default="", server_default="")

    plan_version: Mapped[PlanVersion] = relationship(lazy="raise", back_populates="prices")


class Meter(Base):
    """A declared meter (see catalog.meters). A price names it by its code.

    A meter that counts otherwise than one of the same code before it is another row: values are kept by id.
    """

    __tablename__ = "meters"
    __table_args__ = (
        CheckConstraint(CODE_CHECK, name="code"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("aggregation IN ('count', 'sum', 'unique', 'max', 'latest')", name="aggregation"),
        CheckConstraint("(aggregation = 'count') = (value IS NULL)", name="value"),
        CheckConstraint("events IN ('calls', 'reported', 'all')", name="events"),
        CheckConstraint("jsonb_typeof(filters) = 'object'", name="filters"),
        CheckConstraint("jsonb_typeof(weights) = 'object'", name="weights"),
        Index(None, "api_product_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    api_product_id: Mapped[str] = mapped_column(ForeignKey("api_products.id"))
    aggregation: Mapped[str]
    value: Mapped[str | None]
    events: Mapped[str]
    filters: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    weights: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]

    api_product: Mapped[ApiProduct] = relationship(lazy="raise")
