"""Spend caps: what a customer's cap means for the gateway, and whether it can be kept. Nothing here commits."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.tables import Account
from control_plane.billing.model import PricedVersion, applied_price
from control_plane.billing.queries import billed_from, priced_version
from control_plane.catalog.model import unit_maximum
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.rules import MAX_REPORTED_UNITS
from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.models import read_price
from control_plane.rating.phases import PhaseUsage, VersionUsage, merge_phases
from control_plane.rating.spend_cap import (
    REQUESTS,
    MeteredPrice,
    VersionCharges,
    compile_spend_cap,
    reported_dimensions,
    stricter_cap,
)
from control_plane.subscriptions.cap_renewal import cap_periods
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.rollups.phase_units import CountedUnits, units_of_phases
from gateway_contract.records import SpendCap

Counted = Mapping[tuple[str, datetime], CountedUnits]


@dataclass(frozen=True, slots=True)
class UnboundedDimension:
    """Calls of this route can report any number of units of a dimension that costs something."""

    route: str
    dimension: str


@dataclass(frozen=True, slots=True)
class EndedPhase:
    """The part of a billing period in which a plan ran that is not in force any more."""

    id: str
    account_id: str
    subscription_id: str
    starts_at: datetime
    ends_at: datetime
    period_start: datetime


@dataclass(frozen=True, slots=True)
class Unlogged:
    """Live calls that were admitted, and that usage does not know; `units` of requests."""

    calls: int = 0
    units: int = 0


ReadUnlogged = Callable[[AsyncSession, Collection[EndedPhase]], Awaitable[Mapping[EndedPhase, Unlogged]]]


@dataclass(frozen=True, slots=True)
class SpendCaps:
    """What has been read of subscriptions with a cap; compiled one by one, since one may be spoiled."""

    _subscriptions: Mapping[str, Subscription]
    _currencies: Mapping[str, str]
    """What the account of each subscription pays in."""
    _in_force: Mapping[str, str]
    _versions: Mapping[str, PlanVersion]
    _counted: Counted
    _now: datetime
    changed: frozenset[str] = frozenset()
    """The subscriptions of which another plan ran before, within a period that counts."""

    def compiled(self, subscription_id: str) -> SpendCap | None:
        """Return the cap as the gateway checks it, None where the plan in force charges nothing by use.

        Raises:
            LookupError: the subscription has no cap, or is not there. RatingError: a price cannot be rated.
        """
        subscription, in_force = self._subscriptions[subscription_id], self._in_force[subscription_id]
        version, currency = self._versions[in_force], self._currencies[subscription_id]
        caps: list[SpendCap | None] = []
        periods = cap_periods(subscription, self._now)
        for period in periods:
            charges = charges_within(subscription, self._versions, period, self._counted, currency=currency)
            current = charges.pop(in_force, None)
            # the next period may be another plan's: it is judged by the plan in force now, as by all its limits
            if current is None and len(periods) > 1:
                continue
            caps.append(
                compile_spend_cap(
                    subscription.spend_cap_minor or 0,
                    currency=currency,
                    in_force=current or charges_of(version, subscription, currency),
                    others=list(charges.values()),
                    reserves=_reserves(version.plan.api_product),
                )
            )
        return reduce(stricter_cap, caps, None)


async def read_spend_caps(
    session: AsyncSession,
    in_force: Mapping[str, str],
    *,
    now: datetime,
    read_unlogged: ReadUnlogged | None = None,
) -> SpendCaps:
    """Read what the caps of these subscriptions (plan version in force by id) are made of, in a few queries.

    Without `read_unlogged` nothing is known of calls that are on their way into usage.
    """
    if not in_force:
        return SpendCaps({}, {}, {}, {}, {}, now)
    statement = (
        select(Subscription, Account.currency)
        .join(Account, Account.id == Subscription.account_id)
        .where(is_any_of(Subscription.id, in_force), Subscription.spend_cap_minor.is_not(None))
        .options(selectinload(Subscription.phases))
    )
    found = (await session.execute(statement)).all()
    subscriptions = {row.id: row for row, _ in found}
    currencies = {row.id: currency for row, currency in found}
    needed = {in_force[key] for key in subscriptions}
    spans: set[tuple[str, datetime, datetime]] = set()
    ended: list[EndedPhase] = []
    for key, row in subscriptions.items():
        for period in cap_periods(row, now):
            for phase in phases_within(row, period):
                needed.add(phase.plan_version_id)
                # of the version in force, the gateway counts
                if phase.plan_version_id != in_force[key]:
                    spans.add((phase.id, period.start, period.end))
                    ended += _ended(row, phase, period)
    versions = await plan_versions(session, needed)
    counted = await units_of_phases(session, spans)
    if ended and read_unlogged is not None:
        for of, unlogged in (await read_unlogged(session, ended)).items():
            product = versions[in_force[of.subscription_id]].plan.api_product
            _count_at_most(counted[of.id, of.period_start].at_most, unlogged, product)
    changed = frozenset(of.subscription_id for of in ended)
    return SpendCaps(subscriptions, currencies, in_force, versions, counted, now, changed)


def _ended(row: Subscription, phase: SubscriptionPhase, period: BillingPeriod) -> list[EndedPhase]:
    """Return the part of the period in which the phase ran; one that lasts, or is only planned, has none."""
    later = [other.starts_at for other in row.phases if other.starts_at > phase.starts_at]
    if phase.ends_at is None or not later:
        return []
    starts_at, ends_at = max(phase.starts_at, period.start), min(phase.ends_at, period.end)
    return [EndedPhase(phase.id, row.account_id, row.id, starts_at, ends_at, period.start)]


def _count_at_most(at_most: dict[str, int], unlogged: Unlogged, product: ApiProduct) -> None:
    """Add calls, each as the most that a call can report."""
    reserves = _reserves(product).values()
    for dimension in product.unit_headers:
        most = max((by_name[dimension] for by_name in reserves), default=0)
        at_most[dimension] = at_most.get(dimension, 0) + unlogged.calls * most
    at_most[REQUESTS] = at_most.get(REQUESTS, 0) + unlogged.units


def unbounded_dimension(charges: VersionCharges, product: ApiProduct) -> UnboundedDimension | None:
    """Return the first route and dimension without a declared maximum, where the dimension costs something."""
    for route in product.routes:
        for dimension in sorted(reported_dimensions(charges)):
            if unit_maximum(product.unit_maximums, route=route, dimension=dimension) is None:
                return UnboundedDimension(route, dimension)
    return None


def charges_of(version: PlanVersion, subscription: Subscription, currency: str) -> VersionCharges:
    """Return what a version charges, in the account's currency, for a whole billing period of the subscription."""
    return VersionCharges(prices=_prices(priced_version(version, currency=currency), subscription))


def charges_within(
    subscription: Subscription,
    versions: Mapping[str, PlanVersion],
    period: BillingPeriod,
    counted: Counted | None = None,
    *,
    currency: str,
    phases: Iterable[SubscriptionPhase] | None = None,
) -> dict[str, VersionCharges]:
    """Return, by plan version, what each that runs within a billing period charges for its part of it.

    `phases` takes the place of the subscription's own.
    """
    counted = counted or {}
    phases = _within(subscription.phases if phases is None else phases, period)
    known = {phase.id: counted.get((phase.id, period.start), CountedUnits()) for phase in phases}
    billable = _merged(subscription, phases, period, {key: units.billable for key, units in known.items()})
    at_most = _merged(subscription, phases, period, {key: units.at_most for key, units in known.items()})
    return {
        one.plan_version_id: VersionCharges(
            prices=_prices(priced_version(versions[one.plan_version_id], currency=currency), subscription),
            share=one.share,
            units=one.units,
            units_at_most=most.units,
        )
        for one, most in zip(billable, at_most, strict=True)
    }


def phases_within(subscription: Subscription, period: BillingPeriod) -> list[SubscriptionPhase]:
    """Return the phases (loaded) that have a moment in common with the period, planned ones too."""
    return _within(subscription.phases, period)


def phases_unchanged(subscription: Subscription, now: datetime) -> list[SubscriptionPhase]:
    """Return the phases as if the one in force just before `now` went on; for a change of plan made at `now`."""
    begun = [phase for phase in subscription.phases if phase.starts_at < floor_ms(now)]
    if begun:
        last = begun.pop()
        # a row of its own, in no session
        begun.append(
            SubscriptionPhase(
                id=last.id,
                plan_version_id=last.plan_version_id,
                starts_at=last.starts_at,
                ends_at=subscription.ends_at,
            )
        )
    return begun


def _within(phases: Iterable[SubscriptionPhase], period: BillingPeriod) -> list[SubscriptionPhase]:
    return [
        phase
        for phase in phases
        if phase.starts_at < period.end and (phase.ends_at is None or phase.ends_at > period.start)
    ]


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
    return tuple(
        MeteredPrice(meter=price.meter, price=read_price(price.model, price.params, version.currency))
        for price in applied
    )


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
