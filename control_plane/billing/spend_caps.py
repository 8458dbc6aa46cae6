"""Spend caps and prepaid credits: what they mean for the gateway. Nothing here commits."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.capped_periods import Counted, capped_period, is_over
from control_plane.billing.credits.prepaid import prepaid_limits
from control_plane.billing.terms import Terms, terms_of
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.model import unit_maximum
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.rules import MAX_REPORTED_UNITS
from control_plane.catalog.tables import ApiProduct, Meter, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.spend_cap import compile_spend_cap, stricter_cap
from control_plane.rating.versions import REQUESTS
from control_plane.subscriptions.cap_renewal import EDGE
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import Timeline, TimelinePhase
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.rollups.phase_units import units_of_phases
from gateway_contract.records import SpendCap


@dataclass(frozen=True, slots=True)
class EndedPhase:
    """The part of a billing period in which a plan, or add-on, ran that is not in force any more."""

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
class _Capped:
    """A subscription with a cap of its customer's (`cap_minor`), or whose use credits pay (`prepaid_minor`)."""

    timeline: Timeline
    phase: TimelinePhase
    currency: str
    cap_minor: int | None
    prepaid_minor: int | None
    product: ApiProduct


@dataclass(frozen=True, slots=True)
class SpendCaps:
    """What has been read of subscriptions with a cap; compiled one by one, since one may be spoiled."""

    _capped: Mapping[str, _Capped]
    _versions: Mapping[str, PlanVersion]
    _meters: Mapping[str, Mapping[str, Meter]]
    _counted: Counted
    _now: datetime
    changed: frozenset[str] = frozenset()
    """The subscriptions of which another plan, or add-on, ran before, within a period that counts."""
    _terms: dict[tuple[str, str], Terms] = field(default_factory=dict)

    def compiled(self, subscription_id: str) -> SpendCap | None:
        """Return the cap as the gateway checks it, None where nothing that is in force charges by use.

        Raises:
            LookupError: the subscription is not there. RatingError: a price cannot be rated.
            CurrencyDiffersError: a version is not sold in the account's currency.
        """
        capped = self._capped[subscription_id]
        terms = {key: self._terms_of(key, capped.currency) for key in capped.timeline.version_ids}
        caps: list[SpendCap | None] = []
        for period in cap_periods(capped.timeline, self._now):
            # the next period may be another plan's: it is judged by what is in force now, as by all its limits
            found = capped_period(capped.timeline, capped.phase, period, terms, self._counted)
            if found is not None:
                caps.append(
                    compile_spend_cap(
                        capped.cap_minor,
                        currency=capped.currency,
                        period=found,
                        reserves=reserves_of(capped.product),
                        prepaid_minor=capped.prepaid_minor,
                        invoiced=self._invoiced(capped.timeline),
                    )
                )
        return reduce(stricter_cap, caps, None)

    def _invoiced(self, timeline: Timeline) -> set[str]:
        """Return the versions whose use credits do not pay: plans that are invoiced, and add-ons beside them."""
        paid_ahead = {
            version_id
            for phase in timeline.phases
            if self._versions[phase.plan_version_id].payment == "prepaid"
            for version_id in (phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons))
        }
        return timeline.version_ids - paid_ahead

    def _terms_of(self, version_id: str, currency: str) -> Terms:
        known = self._terms.get((version_id, currency))
        if known is None:
            version, meters = self._versions[version_id], self._meters.get(version_id, {})
            known = self._terms[version_id, currency] = terms_of(version, meters, currency=currency)
        return known


def cap_periods(timeline: Timeline, now: datetime) -> tuple[BillingPeriod, ...]:
    """Return the billing period for which a cap must be right at `now`; both, where one ends within `EDGE`."""
    before, after = timeline.period_at(now - EDGE), timeline.period_at(now + EDGE)
    return (before,) if before == after else (before, after)


async def read_spend_caps(
    session: AsyncSession,
    in_force: Mapping[str, str],
    *,
    now: datetime,
    read_unlogged: ReadUnlogged | None = None,
) -> SpendCaps:
    """Read what the caps of these subscriptions (phase in force by id) are made of, in a few queries.

    Without `read_unlogged` nothing is known of calls that are on their way into usage.
    """
    if not in_force:
        return SpendCaps({}, {}, {}, {}, now)
    capped = await _capped(session, in_force, now)
    spans: set[tuple[str, datetime, datetime]] = set()
    ended: list[EndedPhase] = []
    for one in capped.values():
        for period in cap_periods(one.timeline, now):
            for phase in one.timeline.phases_within(period):
                # of the phase in force, the gateway counts
                if phase.costs and phase.id != one.phase.id:
                    spans.add((phase.id, period.start, period.end))
                    ended += _ended(one, phase, period)
    ids = set().union(*(one.timeline.version_ids for one in capped.values()))
    versions = await plan_versions(session, ids)
    counted = await units_of_phases(session, spans)
    if ended and read_unlogged is not None:
        for of, unlogged in (await read_unlogged(session, ended)).items():
            product = capped[of.subscription_id].product
            _count_at_most(counted[of.id, of.period_start].at_most, unlogged, product)
    changed = frozenset(of.subscription_id for of in ended)
    return SpendCaps(capped, versions, await meters_of_versions(session, ids), counted, now, changed)


async def _capped(session: AsyncSession, in_force: Mapping[str, str], now: datetime) -> dict[str, _Capped]:
    rows = await session.execute(
        select(Subscription.id, Subscription.spend_cap_minor, Account.currency, ApiProduct)
        .join(Account, Account.id == Subscription.account_id)
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .where(is_any_of(Subscription.id, in_force))
    )
    found = await timelines(session, in_force)
    phases = {
        key: next(phase for phase in found[key].phases if phase.id == phase_id)
        for key, phase_id in in_force.items()
    }
    # begun by the clock of whoever changed it, which may be ahead of ours: credits limit it all the same
    at = max([now, *(phase.starts_at for phase in phases.values())])
    limits = await prepaid_limits(session, in_force, now=at)
    return {
        key: _Capped(
            timeline=found[key],
            phase=phases[key],
            currency=currency,
            cap_minor=cap_minor,
            prepaid_minor=limits.get(key),
            product=product,
        )
        for key, cap_minor, currency, product in rows
    }


def _ended(capped: _Capped, phase: TimelinePhase, period: BillingPeriod) -> list[EndedPhase]:
    """Return the part of the period in which the phase ran, where something of it is not in force any more."""
    of = capped.timeline
    if phase.starts_at >= capped.phase.starts_at or not is_over(phase, capped.phase):
        return []
    ends_at = min(phase.ends_at or period.end, period.end)
    return [EndedPhase(phase.id, of.account_id, of.subscription_id, phase.starts_at, ends_at, period.start)]


def _count_at_most(at_most: dict[str, int], unlogged: Unlogged, product: ApiProduct) -> None:
    """Add calls, each as the most that a call can report."""
    reserves = reserves_of(product).values()
    for dimension in product.unit_headers:
        most = max((by_name[dimension] for by_name in reserves), default=0)
        at_most[dimension] = at_most.get(dimension, 0) + unlogged.calls * most
    at_most[REQUESTS] = at_most.get(REQUESTS, 0) + unlogged.units


def reserves_of(product: ApiProduct) -> dict[str, dict[str, int]]:
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
