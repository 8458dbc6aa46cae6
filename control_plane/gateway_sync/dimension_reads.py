"""Which dimensions spend caps count, and how much of each was used by hour."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, case, cast, exists, func, not_, select, true, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import REQUESTS_METER
from control_plane.catalog.tables import PlanVersion, Price
from control_plane.foundation.db import is_any_of
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn, SubscriptionPhase
from control_plane.subscriptions.trial_hours import is_before_billing
from control_plane.usage.tables import UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class DimensionHour:
    """Units of one dimension that live calls of one hour used: `admitted` by all, `billed` by those billed."""

    subscription_id: str
    hour: datetime
    dimension: str
    admitted: int
    billed: int


async def capped_dimensions(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, frozenset[str]]:
    """Return, for subscriptions with a spend cap or a prepaid plan, the dimensions that their prices count."""
    prepaid = exists().where(
        SubscriptionPhase.subscription_id == Subscription.id,
        PlanVersion.id == SubscriptionPhase.plan_version_id,
        PlanVersion.payment == "prepaid",
    )
    capped = (
        select(Subscription.id)
        .where(is_any_of(Subscription.id, subscription_ids), Subscription.spend_cap_minor.is_not(None) | prepaid)
        .cte("capped")
    )
    held = union_all(
        *(
            select(of.subscription_id, of.plan_version_id).where(of.subscription_id.in_(select(capped.c.id)))
            for of in (SubscriptionPhase, SubscriptionAddOn)
        )
    ).subquery("held")
    statement = (
        select(capped.c.id, Price.meter)
        .distinct()
        .join(held, held.c.subscription_id == capped.c.id)
        .join(Price, Price.plan_version_id == held.c.plan_version_id)
        .where(Price.meter.is_not(None), Price.meter != REQUESTS_METER)
    )
    found: dict[str, set[str]] = defaultdict(set)
    for subscription_id, meter in await session.execute(statement):
        found[subscription_id].add(str(meter))
    return {subscription_id: frozenset(meters) for subscription_id, meters in found.items()}


async def dimension_hours(
    session: AsyncSession, subscription_ids: Collection[str], *, start: datetime, end: datetime
) -> list[DimensionHour]:
    """Return units of every dimension in the hours in [start, end)."""
    if not subscription_ids:
        return []
    each = func.jsonb_each_text(UsageHourly.dimensions).table_valued("key", "value").lateral()
    served = UsageHourly.outcome == Outcome.SERVED.value
    statement = (
        select(
            SubscriptionPhase.subscription_id,
            UsageHourly.hour,
            each.c.key,
            _total(case((served, cast(each.c.value, BigInteger)), else_=0)),
            _total(func.coalesce(cast(UsageHourly.billable_dimensions.op("->>")(each.c.key), BigInteger), 0)),
        )
        .select_from(UsageHourly)
        .join(SubscriptionPhase, SubscriptionPhase.id == UsageHourly.phase_id)
        .join(Subscription, Subscription.id == SubscriptionPhase.subscription_id)
        .join(each, true())
        .where(
            not_(is_before_billing(UsageHourly.hour)),
            is_any_of(SubscriptionPhase.subscription_id, subscription_ids),
            UsageHourly.mode == Mode.LIVE.value,
            UsageHourly.hour >= start,
            UsageHourly.hour < end,
        )
        .group_by(SubscriptionPhase.subscription_id, UsageHourly.hour, each.c.key)
    )
    return [DimensionHour(*row) for row in await session.execute(statement)]


def _total(value: Any) -> Any:
    # PostgreSQL's sum of bigint is numeric
    return cast(func.sum(value), BigInteger)
