"""Which larger plan would have fitted what a subscription asked for. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control_plane.billing.comparisons.plan_cost import DEMAND_DAYS, in_period, plan_cost
from control_plane.catalog.model import REQUESTS_METER, PlanTerms
from control_plane.catalog.plan_sizes import UNLIMITED, is_larger, plan_size, quota_size, rate_per_ms
from control_plane.rating.model import RatingError
from gateway_contract.records import Window

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What was asked for in 30 days, served or refused for want of a larger plan; test calls are not in it.

    `units` by meter: quota units (`requests`) with one for each refused call, and what was served of each
    dimension. `refused_calls` by a rate limit or the quota, of which `rate_limited_calls` by a rate limit.
    `not_added`: meters whose values do not add up.
    """

    units: Mapping[str, int] = field(default_factory=dict)
    refused_calls: int = 0
    rate_limited_calls: int = 0
    peak_hour_calls: int = 0
    not_added: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        return {
            "days": DEMAND_DAYS,
            "units": dict(self.units),
            "refused_calls": self.refused_calls,
            "rate_limited_calls": self.rate_limited_calls,
            "peak_hour_calls": self.peak_hour_calls,
        }


@dataclass(frozen=True, slots=True)
class OwnQuota:
    """A quota of the subscription's own, and the cap of one that charges: they stand in place of every plan's."""

    units: int | None = None
    cap_units: int | None = None


NOT_OWN = OwnQuota()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plan that anybody may take today."""

    code: str
    name: str
    position: int
    terms: PlanTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The plan that a subscription has; `quota_units` with its override."""

    code: str
    quota_units: int | None
    terms: PlanTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedOffer:
    """A larger plan. `amount_minor` is what the demand costs in one billing period, None by quote or not priced.

    `refuses` says in words why it would have refused calls, '' where it would not.
    """

    plan: str
    name: str
    amount_minor: int | None
    currency: str
    refuses: str

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def choose_fitting_plan(offers: Iterable[Offer], *, held: Held, demand: Demand) -> tuple[JudgedOffer, ...]:
    """Return the offers that are larger than the plan held, the one to name first; none is larger: ().

    First come those that would have refused nothing, the cheapest for this demand before the others; then those
    sold by quote, whose terms are still to be agreed; then those that would have refused calls, the largest first.
    Only plans of the same currency and interval count: a subscription can move to no other.
    """
    have = (quota_size(held.quota_units), rate_per_ms(held.terms.windows))
    larger = [
        (offer, judge_offer(offer, held=held, demand=demand))
        for offer in offers
        if offer.code != held.code
        and (offer.terms.currency, offer.terms.interval) == (held.terms.currency, held.terms.interval)
        and is_larger(_size(offer.terms), than=have)
    ]
    larger.sort(key=lambda pair: _preference(*pair))
    return tuple(judged for _, judged in larger)


def judge_offer(offer: Offer, *, held: Held, demand: Demand) -> JudgedOffer:
    """Say what one offer would have cost, and whether it would have refused calls."""
    terms = offer.terms
    amount_minor = None if terms.by_quote else _amount_minor(terms, demand)
    refuses = "" if terms.by_quote else why_refused(terms, held=held.terms, demand=demand)
    if amount_minor is None and not terms.by_quote:
        refuses = refuses or "its price cannot be worked out"
    return JudgedOffer(
        plan=offer.code, name=offer.name, amount_minor=amount_minor, currency=terms.currency, refuses=refuses
    )


def _preference(offer: Offer, judged: JudgedOffer) -> tuple[Any, ...]:
    size = _size(offer.terms)
    if judged.refuses:
        return 2, *(-part for part in size), offer.position, offer.code
    rank = 1 if offer.terms.by_quote else 0
    return rank, judged.amount_minor or 0, *size, offer.position, offer.code


def most_units(terms: PlanTerms, own: OwnQuota = NOT_OWN) -> int | None:
    """Return the quota units above which calls are refused in a billing period, None for no such bound."""
    quota = terms.quota_units if own.units is None else own.units
    cap = terms.quota_cap_units if own.cap_units is None else own.cap_units
    if terms.quota_hard or quota is None or cap is None:
        return quota if terms.quota_hard else None
    return max(cap, quota)


def why_refused(terms: PlanTerms, *, held: PlanTerms | None, demand: Demand, own: OwnQuota = NOT_OWN) -> str:
    """Say in words why terms would have refused calls, '' where not; `held`: the terms now, None for nothing."""
    missing = sorted(set(held.entitlements).difference(terms.entitlements)) if held else []
    if missing:
        return f"lacks {', '.join(missing)}"
    most = most_units(terms, own)
    if most is not None and in_period(demand.units.get(REQUESTS_METER, 0), terms) > most:
        return f"refuses above {most:,} units"
    if held and demand.rate_limited_calls and not _is_wider(terms, held):
        return "its limits are no wider"
    for window in terms.windows:
        if window.limit * HOUR_MS < demand.peak_hour_calls * window.window_ms:
            return f"{_words(window)} are fewer than the {demand.peak_hour_calls:,} calls of the busiest hour"
    return ""


def _is_wider(terms: PlanTerms, than: PlanTerms) -> bool:
    """Say whether a plan would have let through more at a time; which of its limits a caller hit is not known."""
    if than.concurrency is not None:
        at_a_time = UNLIMITED if terms.concurrency is None else terms.concurrency.limit
        if at_a_time > than.concurrency.limit:
            return True
    return rate_per_ms(terms.windows) > rate_per_ms(than.windows)


def _amount_minor(terms: PlanTerms, demand: Demand) -> int | None:
    try:
        return plan_cost(terms, demand.units, not_added=demand.not_added).amount_minor
    except RatingError:
        return None


def _size(terms: PlanTerms) -> tuple[float, float]:
    return plan_size(quota_units=terms.quota_units, windows=terms.windows, by_quote=terms.by_quote)


def _words(window: Window) -> str:
    return f"{window.limit:,} calls in {window.window_ms / 1000:g} s"
