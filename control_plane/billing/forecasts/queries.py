"""Forecasts of running billing periods, by the same steps as invoices. Reads only."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil, floor

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.comparisons.fitting_plans import OwnQuota, most_units
from control_plane.billing.forecasts.days import TimeAhead, time_ahead
from control_plane.billing.forecasts.history import History, usage_history
from control_plane.billing.forecasts.model import Forecast, MeterForecast, QuotaForecast, Range, Sureness, how_sure
from control_plane.billing.forecasts.projection import NOTHING_AHEAD, Rest, project, project_from_hours
from control_plane.billing.model import QuotaProgress
from control_plane.billing.period_facts import PeriodFacts, period_facts, quota_progress
from control_plane.billing.queries import used_units
from control_plane.catalog.queries import plan_versions, terms_of_version
from control_plane.foundation.errors import ConflictError
from control_plane.rating.versions import REQUESTS

CASES = ("low", "likely", "high")
# a pace is no pace of less than an hour
LEAST_OF_DAY = 1 / 24


class NothingToForecastError(ConflictError):
    """The subscription is over, or has not begun."""

    def __init__(self, subscription_id: str) -> None:
        super().__init__(
            "nothing_to_forecast",
            f"Subscription {subscription_id} does not run: see the preview of its last invoice instead.",
        )


async def forecast(
    session: AsyncSession, *, account_id: str, product_code: str, now: datetime, seller_country: str = ""
) -> Forecast:
    """Return what the running billing period of an account's subscription will come to at its end.

    Planned changes are in it; calls beyond a hard quota, or the cap of one, are not, since they are refused.

    Raises:
        NotFoundError: no such account or API product. NotSubscribedError: never a subscription.
        NothingToForecastError: it is over, or lies ahead.
    """
    facts = await period_facts(
        session, account_id=account_id, product_code=product_code, now=now, seller_country=seller_country
    )
    timeline, period = facts.timeline, facts.period
    if timeline.phase_at(now) is None or now not in period:
        raise NothingToForecastError(timeline.subscription_id)
    until = min(period.end, timeline.ends_at or period.end)
    not_added = frozenset().union(*(terms.not_carried for terms in facts.terms.values()))
    history = await usage_history(session, timeline, not_added=not_added, now=now)
    ahead = time_ahead(facts.phases, now=now, until=until, hour_shares=history.hour_shares)
    rests = _rests(history, ahead)
    quota, asked = quota_progress(facts, at=now), rests.get(REQUESTS, NOTHING_AHEAD)
    most = None if quota is None else await _most_units(session, facts, quota, now=now)
    if quota is not None and most is not None and REQUESTS in rests:
        rests = _served(rests, most=max(0, most - quota.used_units))
    so_far = sum(line.amount_minor for line in facts.lines())
    cases = {case: facts.lines(_units_at_end(facts, ahead, rests, case)) for case in CASES}
    amounts = {case: facts.amounts(lines) for case, lines in cases.items()}
    used = await used_units(session, facts)
    return Forecast(
        account_id=account_id,
        account_name=facts.payer.name,
        product_code=product_code,
        product_name=facts.product.name,
        subscription_id=timeline.subscription_id,
        period=period,
        until=until,
        as_of=now,
        currency=facts.payer.currency,
        sureness=_sureness(rests, history, used_units=used[REQUESTS]),
        days_known=history.count,
        meters=_meters(used, rests),
        lines=cases["likely"],
        subtotal_so_far_minor=so_far,
        subtotal=_range([amounts[case].subtotal_minor for case in CASES]),
        total=_range([amounts[case].total_minor for case in CASES]),
        quota=_quota(quota, asked, ahead) if quota else None,
        spend_cap_minor=facts.spend_cap_minor,
    )


async def _most_units(
    session: AsyncSession, facts: PeriodFacts, quota: QuotaProgress, *, now: datetime
) -> int | None:
    """Return the units above which calls are refused: a hard quota, or the cap of one that charges."""
    in_force = facts.timeline.phase_at(now)
    if in_force is None:
        return None
    versions = await plan_versions(session, [in_force.plan_version_id])
    terms = terms_of_version(versions[in_force.plan_version_id])
    own = facts.timeline.own_quota_in(facts.period)
    most = most_units(terms, OwnQuota(own, facts.timeline.quota_cap_override))
    if most is None:
        return None
    return quota.quota_units + most - (terms.quota_units or 0 if own is None else own)


def _sureness(rests: Mapping[str, Rest], history: History, *, used_units: int) -> Sureness:
    if not rests:
        return Sureness.NONE
    rest = rests.get(REQUESTS, NOTHING_AHEAD)
    return how_sure(
        days_known=history.count, used_units=used_units, low=rest.low, likely=rest.likely, high=rest.high
    )


def _rests(history: History, ahead: TimeAhead) -> dict[str, Rest]:
    """Return what is expected by meter; of a meter never used, nothing."""
    of_day = max(history.lately_days, LEAST_OF_DAY)
    found = {}
    for meter, days in history.days.items():
        rest = project(days, ahead=ahead.days)
        if rest is None:
            rest = project_from_hours(history.lately.get(meter, 0), of_day=of_day, ahead=ahead.days)
        if rest is not None:
            found[meter] = rest
    return found


def _served(rests: Mapping[str, Rest], *, most: int) -> dict[str, Rest]:
    """Return what is left where calls beyond so many are refused: of every meter as much less as of calls.

    What is asked for by day stays as it is: it says when the quota is used up.
    """
    requests = rests[REQUESTS]
    parts = [min(1.0, most / units) if units else 1.0 for units in (requests.low, requests.likely, requests.high)]
    return {
        meter: Rest(rest.low * parts[0], rest.likely * parts[1], rest.high * parts[2], rest.by_day)
        for meter, rest in rests.items()
    }


def _units_at_end(
    facts: PeriodFacts, ahead: TimeAhead, rests: Mapping[str, Rest], case: str
) -> dict[str, dict[str, int]]:
    """Return units by phase at the end: what was used, and what is expected, by day as phases share the days."""
    units: dict[str, dict[str, int]] = defaultdict(dict)
    for phase_id, used in facts.units.items():
        units[phase_id] = dict(used)
    for meter, rest in rests.items():
        expected = sum(rest.by_day)
        if not expected:
            continue
        scale = getattr(rest, case) / expected
        for phase_id, parts in ahead.of_phases.items():
            more = scale * sum(
                of_day * part / whole
                for of_day, part, whole in zip(rest.by_day, parts, ahead.days, strict=True)
                if whole
            )
            units[phase_id][meter] = units[phase_id].get(meter, 0) + _whole(more, case)
    return dict(units)


def _whole(units: float, case: str) -> int:
    near = round(units, 3)  # so that what is reckoned in fractions does not end beside a whole
    if case == "low":
        return floor(near)
    return ceil(near) if case == "high" else round(near)


def _meters(used: Mapping[str, int], rests: Mapping[str, Rest]) -> tuple[MeterForecast, ...]:
    """Return meters that were used or will be, requests first."""
    found = []
    for meter in sorted({*used, *rests}, key=lambda meter: (meter != REQUESTS, meter)):
        so_far, rest = used.get(meter, 0), rests.get(meter, NOTHING_AHEAD)
        if not so_far and not rest.high and meter != REQUESTS:
            continue
        found.append(
            MeterForecast(
                meter=meter,
                used_units=so_far,
                at_end=Range(*(so_far + _whole(getattr(rest, case), case) for case in CASES)),
                projected=meter in rests,
            )
        )
    return tuple(found)


def _range(amounts: Sequence[int]) -> Range:
    """Return a range of amounts; more units can cost less (volume prices)."""
    return Range(min(amounts), amounts[CASES.index("likely")], max(amounts))


def _quota(quota: QuotaProgress, requests: Rest, ahead: TimeAhead) -> QuotaForecast:
    left = quota.quota_units - quota.used_units
    expected = sum(requests.by_day)

    def when(units: float) -> datetime | None:
        if not expected:
            return ahead.now if left <= 0 else None
        return ahead.moment_of([of_day * units / expected for of_day in requests.by_day], left)

    return QuotaForecast(
        quota_units=quota.quota_units,
        used_units=quota.used_units,
        hard=quota.hard,
        likely_at=when(expected),
        earliest_at=when(requests.high),
        latest_at=when(requests.low),
    )
