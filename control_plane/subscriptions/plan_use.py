"""Who is on which plan versions: how many subscriptions, and what they pay in. Reads only."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select, union
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn, SubscriptionPhase


@dataclass(frozen=True, slots=True)
class PlanUse:
    """`live` subscriptions that have the plan now or are to move to it, and all that ever had it (`ever`)."""

    live: int
    ever: int


@dataclass(frozen=True, slots=True)
class VersionUse:
    """Live subscriptions whose account pays in `currency` on one plan version.

    `paying` leaves out trials and pauses. `units`: as many times the prices are charged, by those who pay; more
    than `paying` only for add-ons that are bought several times.
    """

    plan_version_id: str
    currency: str
    subscriptions: int
    paying: int
    units: int


async def use_of_plan(session: AsyncSession, plan_id: str, *, now: datetime) -> PlanUse:
    """Return how many subscriptions have and had any version of a plan or add-on."""
    versions = select(PlanVersion.id).where(PlanVersion.plan_id == plan_id)
    touching = union(
        select(SubscriptionPhase.subscription_id).where(SubscriptionPhase.plan_version_id.in_(versions)),
        select(SubscriptionAddOn.subscription_id).where(SubscriptionAddOn.plan_version_id.in_(versions)),
    ).subquery()
    ahead = union(
        select(SubscriptionPhase.subscription_id).where(
            SubscriptionPhase.plan_version_id.in_(versions), _not_over(SubscriptionPhase.ends_at, now)
        ),
        select(SubscriptionAddOn.subscription_id).where(
            SubscriptionAddOn.plan_version_id.in_(versions), _not_over(SubscriptionAddOn.ends_at, now)
        ),
    )
    live = select(func.count()).where(Subscription.id.in_(ahead), Subscription.status.not_in(sorted(OVER)))
    ever = select(func.count()).select_from(touching)
    return PlanUse(live=await session.scalar(live) or 0, ever=await session.scalar(ever) or 0)


async def use_of_product(session: AsyncSession, product_code: str) -> PlanUse:
    """Return how many subscriptions an API product has and had."""
    of_product = (
        select(func.count(), func.count().filter(Subscription.status.not_in(sorted(OVER))))
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .where(ApiProduct.code == product_code)
    )
    ever, live = (await session.execute(of_product)).one()
    return PlanUse(live=live, ever=ever)


async def uses_of_versions(
    session: AsyncSession, plan_codes: Collection[str], *, now: datetime
) -> dict[str, list[VersionUse]]:
    """Return, by plan code, who is on which version of these plans and add-ons at `now`, in no order."""
    found: dict[str, list[VersionUse]] = {}
    phases = _grouped(
        SubscriptionPhase,
        plan_codes,
        now,
        paying=SubscriptionPhase.kind == "paid",
        quantity=func.count().filter(SubscriptionPhase.kind == "paid"),
    )
    add_ons = _grouped(
        SubscriptionAddOn,
        plan_codes,
        now,
        paying=Subscription.status.in_(("active", "past_due")),
        quantity=func.coalesce(
            func.sum(SubscriptionAddOn.quantity).filter(Subscription.status.in_(("active", "past_due"))), 0
        ),
    )
    for statement in (phases, add_ons):
        for code, version_id, currency, subscriptions, paying, units in await session.execute(statement):
            use = VersionUse(version_id, currency, subscriptions, paying, int(units))
            found.setdefault(code, []).append(use)
    return found


def _grouped(
    table: type[SubscriptionPhase] | type[SubscriptionAddOn],
    plan_codes: Collection[str],
    now: datetime,
    *,
    paying: ColumnElement[bool],
    quantity: ColumnElement[Any],
) -> Select[Any]:
    return (
        select(
            Plan.code,
            table.plan_version_id,
            Account.currency,
            func.count(Subscription.id.distinct()),
            func.count(Subscription.id.distinct()).filter(paying),
            quantity,
        )
        .select_from(table)
        .join(PlanVersion, PlanVersion.id == table.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .join(Subscription, Subscription.id == table.subscription_id)
        .join(Account, Account.id == Subscription.account_id)
        .where(
            is_any_of(Plan.code, plan_codes),
            Subscription.status.not_in(sorted(OVER)),
            table.starts_at <= now,
            _not_over(table.ends_at, now),
        )
        .group_by(Plan.code, table.plan_version_id, Account.currency)
    )


def _not_over(ends_at: Any, now: datetime) -> ColumnElement[bool]:
    return or_(ends_at.is_(None), ends_at > now)
