"""What keeps terms, each field of which is right by itself, from being sold. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.catalog.model import (
    ADD_ON,
    BUILT_IN_METERS,
    FIXED_MODELS,
    MEASURED_METERS,
    REQUESTS_METER,
    PlanTerms,
    PriceTerms,
    ProductFacts,
    unit_maximum,
)
from control_plane.catalog.stripe_limits import stripe_problems
from control_plane.foundation.errors import Problem

# what a subscription has from its plan, and an add-on cannot change
_OF_PLANS_ONLY = (
    "quota_hard",
    "quota_cap_units",
    "windows",
    "concurrency",
    "redis_down",
    "on_past_due",
    "billable_below",
    "event_retention_days",
    "trial_days",
    "quota_on_change",
    "payment",
)


@dataclass(frozen=True, slots=True)
class Sale:
    """What is sold, a plan or an add-on, and what its prices can count; `monthly_meters` on monthly plans only.

    `unbounded`: meters of which nobody knows beforehand how much one call comes to, each with the reason.
    """

    kind: str
    meters: Collection[str]
    monthly_meters: Collection[str]
    unbounded: Mapping[str, str] = field(default_factory=dict)


def unbounded_meters(product: ProductFacts, declared: Collection[str] = ()) -> dict[str, str]:
    """Return what a gateway cannot bound call by call, each with the reason: credits cannot pay for it ahead."""
    reasons = dict.fromkeys(declared, "gateways count requests and reported units, not what a meter makes of them")
    for dimension in product.meters - {REQUESTS_METER}:
        reason = _why_unbounded(product, dimension)
        if reason:
            reasons[dimension] = reason
    return reasons


def _why_unbounded(product: ProductFacts, dimension: str) -> str:
    if dimension in MEASURED_METERS:
        return "how many of them a call comes to is known only afterwards"
    for route in product.routes:
        if unit_maximum(product.unit_maximums, route=route, dimension=dimension) is None:
            return (
                f"API product {product.code} does not declare how many of them one call to route {route} can "
                "report at most (unit_maximums)"
            )
    return ""


def reasons_against(
    terms: PlanTerms,
    *,
    sale: Sale,
    name: Callable[[str], str],
    positions: Sequence[int],
    whole: bool,
) -> list[Problem]:
    """Return every reason. `name` gives a field's path; `positions` those of the terms' own prices, in order.

    Not `whole`: parts of the terms could not be read, so nothing is said of what the rest lacks.
    """
    own = [price for price in terms.prices if not price.currency]
    problems = [
        problem
        for position, price in zip(positions, own, strict=True)
        for problem in _of_price(price, terms, sale, f"{name('prices')}[{position}]")
    ]
    if sale.kind == ADD_ON:
        problems += _of_add_on(terms, name)
    problems += _of_billing(terms, name)
    if whole:
        problems += _of_whole(terms, own, sale.kind, name)
    return problems


def _of_price(price: PriceTerms, terms: PlanTerms, sale: Sale, path: str) -> Iterator[Problem]:
    if price.model == "overage" and price.meter == REQUESTS_METER and terms.quota_hard:
        yield Problem(f"{path}.model", "overage never comes due where the quota refuses calls")
    if price.model == "commitment" and sale.kind == ADD_ON:
        yield Problem(f"{path}.model", "an add-on cannot have a commitment: it belongs to the plan")
    if price.model in FIXED_MODELS:
        return
    if price.meter in sale.monthly_meters and terms.interval != "month":
        yield Problem(
            f"{path}.meter",
            f"{price.meter} counts different values, which needs all events of a period: only monthly plans can",
        )
    elif price.meter not in {*sale.meters, *sale.monthly_meters}:
        known = ", ".join(sorted({*sale.meters, *sale.monthly_meters}))
        yield Problem(f"{path}.meter", f"must be one of {known}")
    elif price.model == "percentage" and price.meter in BUILT_IN_METERS:
        yield Problem(
            f"{path}.meter",
            f"{price.meter} is no amount of money: a percentage needs a meter that counts minor units (cents)",
        )
    elif terms.payment == "prepaid" and price.meter in sale.unbounded:
        yield Problem(
            f"{path}.meter", f"prepaid credits cannot pay for {price.meter}: {sale.unbounded[price.meter]}"
        )


def _of_add_on(terms: PlanTerms, name: Callable[[str], str]) -> Iterator[Problem]:
    standard = PlanTerms(interval=terms.interval, currency=terms.currency)
    for own in _OF_PLANS_ONLY:
        if getattr(terms, own) != getattr(standard, own):
            yield Problem(name(own), "is a plan's matter: an add-on adds quota, entitlements and prices to it")


def _of_billing(terms: PlanTerms, name: Callable[[str], str]) -> Iterator[Problem]:
    if terms.after_trial != "continue" and terms.trial_days is None:
        yield Problem(name("trial_days"), "is required: without a trial nothing comes after it")
    if terms.billed_by == "stripe" and terms.quota_on_change != "full":
        yield Problem(
            name("quota_on_change"),
            "must be full where Stripe bills: there an upgrade begins anew, with the whole allowance;"
            " or say billed_by: own",
        )
    if terms.billed_by == "stripe" and terms.payment == "prepaid":
        yield Problem(name("payment"), "must be invoice where Stripe bills: prepaid credits are kept here")
    if terms.billed_by == "stripe":
        yield from (Problem(name("prices"), problem) for problem in stripe_problems(terms))


def _of_whole(
    terms: PlanTerms, own: Sequence[PriceTerms], kind: str, name: Callable[[str], str]
) -> Iterator[Problem]:
    counted = [price for price in own if price.model not in FIXED_MODELS]
    commitments = [price for price in own if price.model == "commitment"]
    if len(commitments) > 1:
        yield Problem(name("prices"), "must have at most one commitment")
    for price in commitments:
        others = counted if price.params.get("counts") != "all" else [one for one in own if one is not price]
        if not others:
            index = own.index(price)
            yield Problem(
                f"{name('prices')}[{index}]",
                "there is nothing to commit to: add a price whose charges count towards it",
            )
    if terms.payment == "prepaid":
        if not counted:
            yield Problem(
                name("payment"), "prepaid credits pay for usage: add a price that counts something, or say invoice"
            )
        if commitments:
            yield Problem(name("payment"), "a commitment is settled by invoice: say invoice, or take it out")
    if kind == ADD_ON and not (own or terms.quota_units or terms.entitlements or terms.features):
        yield Problem(name("prices"), "the add-on gives nothing and costs nothing: add a quota or a price")
