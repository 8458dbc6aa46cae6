"""Spend caps: what a customer's cap means for the gateway, and whether it can be kept. Nothing here commits."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.billing.model import PricedVersion, applied_price
from control_plane.billing.queries import billed_from, priced_version
from control_plane.catalog.model import unit_maximum
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.rules import MAX_REPORTED_UNITS
from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.models import read_price
from control_plane.rating.phases import PhaseUsage, VersionUsage, merge_phases
from control_plane.rating.spend_cap import (
    MeteredPrice,
    VersionCharges,
    compile_spend_cap,
    reported_dimensions,
    stricter_cap,
)
from control_plane.subscriptions.cap_renewal import cap_periods
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.phase_units import CountedUnits, units_of_phases
from gateway_contract.records import SpendCap

Counted = Mapping[tuple[str, datetime], CountedUnits]


@dataclass(frozen=True, slots=True)
class UnboundedDimension:
    """Calls of this route can report any number of units of a dimension that costs something."""

    route: str
    dimension: str


async def compiled_spend_caps(
    session: AsyncSession, in_force: Mapping[str, str], *, now: datetime
) -> dict[str, SpendCap]:
    """Return caps by subscription id, for those of `in_force` (plan version by subscription) that need one.

    A few queries for all of them. A subscription without a cap, or whose plan charges nothing by use, is left out.
    """
    statement = (
        select(Subscription)
        .where(is_any_of(Subscription.id, in_force), Subscription.spend_cap_minor.is_not(None))
        .options(selectinload(Subscription.phases))
    )
    subscriptions = (await session.scalars(statement)).all()
    periods = {row.id: cap_periods(row.anchor_at, row.interval, now) for row in subscriptions}
    needed = {in_force[row.id] for row in subscriptions}
    spans: list[tuple[str, datetime, datetime]] = []
    for row in subscriptions:
        for period in periods[row.id]:
            for phase in phases_within(row, period):
                needed.add(phase.plan_version_id)
                if phase.plan_version_id != in_force[row.id]:
                    spans.append((phase.id, period.start, period.end))
    versions = await plan_versions(session, needed)
    counted = await units_of_phases(session, spans)
    caps: dict[str, SpendCap] = {}
    for row in subscriptions:
        cap = _compiled(row, versions, counted, in_force=in_force[row.id], periods=periods[row.id])
        if cap is not None:
            caps[row.id] = cap
    return caps


def unbounded_dimension(charges: VersionCharges, product: ApiProduct) -> UnboundedDimension | None:
    """Return the first route and dimension without a declared maximum, where the dimension costs something."""
    for route in product.routes:
        for dimension in sorted(reported_dimensions(charges)):
            if unit_maximum(product.unit_maximums, route=route, dimension=dimension) is None:
                return UnboundedDimension(route, dimension)
    return None


def charges_of(version: PlanVersion, subscription: Subscription) -> VersionCharges:
    """Return what a version charges for a whole billing period of the subscription."""
    return VersionCharges(prices=_prices(priced_version(version), subscription))


def charges_within(
    subscription: Subscription,
    versions: Mapping[str, PlanVersion],
    period: BillingPeriod,
    counted: Counted | None = None,
) -> dict[str, VersionCharges]:
    """Return, by plan version, what each that runs within a billing period charges for its part of it."""
    counted = counted or {}
    phases = phases_within(subscription, period)
    known = {phase.id: counted.get((phase.id, period.start), CountedUnits()) for phase in phases}
    billable = _merged(subscription, phases, period, {key: units.billable for key, units in known.items()})
    at_most = _merged(subscription, phases, period, {key: units.at_most for key, units in known.items()})
    return {
        one.plan_version_id: VersionCharges(
            prices=_prices(priced_version(versions[one.plan_version_id]), subscription),
            share=one.share,
            units=one.units,
            units_at_most=most.units,
        )
        for one, most in zip(billable, at_most, strict=True)
    }


def phases_within(subscription: Subscription, period: BillingPeriod) -> list[SubscriptionPhase]:
    """Return the phases (loaded) that have a moment in common with the period, planned ones too."""
    return [
        phase
        for phase in subscription.phases
        if phase.starts_at < period.end and (phase.ends_at is None or phase.ends_at > period.start)
    ]


def _compiled(
    subscription: Subscription,
    versions: Mapping[str, PlanVersion],
    counted: Counted,
    *,
    in_force: str,
    periods: Sequence[BillingPeriod],
) -> SpendCap | None:
    caps: list[SpendCap | None] = []
    for period in periods:
        charges = charges_within(subscription, versions, period, counted)
        # a period in which the plan changes is judged by the plan that is in force now, as every other limit is
        current = charges.pop(in_force, None)
        if current is None and len(periods) > 1:
            continue
        caps.append(
            compile_spend_cap(
                subscription.spend_cap_minor or 0,
                currency=versions[in_force].currency,
                in_force=current or charges_of(versions[in_force], subscription),
                others=list(charges.values()),
                reserves=_reserves(versions[in_force].plan.api_product),
            )
        )
    first, *more = caps or [None]
    return stricter_cap(first, more[0]) if more else first


def _merged(
    subscription: Subscription,
    phases: Iterable[SubscriptionPhase],
    period: BillingPeriod,
    units: Mapping[str, Mapping[str, int]],
) -> Collection[VersionUsage]:
    return merge_phases(
        [
            PhaseUsage(
                plan_version_id=phase.plan_version_id,
                starts_at=billed_from(phase.starts_at, subscription),
                ends_at=phase.ends_at,
                units=units[phase.id],
            )
            for phase in phases
        ],
        period_start=period.start,
        period_end=period.end,
    )


def _prices(version: PricedVersion, subscription: Subscription) -> tuple[MeteredPrice, ...]:
    applied = [
        applied_price(price, version, subscription.overrides.get("quota_units")) for price in version.prices
    ]
    return tuple(MeteredPrice(meter=price.meter, price=read_price(price.model, price.params)) for price in applied)


def _reserves(product: ApiProduct) -> dict[str, dict[str, int]]:
    """Return the most that a call can report, by route.

    `billing.operations` refuses whatever would leave a maximum out; should one be missing all the same, calls
    reserve the largest that can be declared.
    """
    return {
        route: {
            dimension: _known(unit_maximum(product.unit_maximums, route=route, dimension=dimension))
            for dimension in product.unit_headers
        }
        for route in product.routes
    }


def _known(maximum: int | None) -> int:
    return MAX_REPORTED_UNITS if maximum is None else maximum
