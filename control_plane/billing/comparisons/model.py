"""What the same use costs on each plan, side by side. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.billing.comparisons.fitting_plans import NOT_OWN, Demand, OwnQuota, most_units, why_refused
from control_plane.billing.comparisons.plan_cost import in_period, plan_cost, setup_fee_minor
from control_plane.catalog.model import REQUESTS_METER, PlanTerms
from control_plane.rating.model import RatingError
from control_plane.rating.period import RatedPrice


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan to compare; `terms` in the currency of the comparison. `held`: the plan that the customer has."""

    code: str
    name: str
    version: int
    position: int
    terms: PlanTerms
    public: bool = True
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPlan:
    """What the use costs on one plan; amounts None where it is sold by quote or its prices cannot be worked out.

    `period_minor` is for a billing period of the plan's own interval, `monthly_minor` and `yearly_minor` the same
    for all. `refused_units`: quota units of a billing period above what the plan lets through: these are not
    charged. `refuses`: why it would have refused calls, '' where not.
    """

    plan: Candidate
    period_minor: int | None
    monthly_minor: int | None
    yearly_minor: int | None
    setup_fee_minor: int
    lines: tuple[RatedPrice, ...]
    refused_units: int
    refuses: str

    @property
    def fits(self) -> bool:
        return not self.refuses and self.period_minor is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Plans, the cheapest by month first. `cheapest_fitting`: the code of the cheapest that refuses nothing.

    `demand`: the use of 30 days. `not_sold`: plans of the API product that have no prices in the currency.
    """

    product_code: str
    product_name: str
    currency: str
    demand: Demand
    plans: tuple[ComparedPlan, ...]
    not_sold: tuple[str, ...]

    @property
    def cheapest_fitting(self) -> str | None:
        return next((one.plan.code for one in self.plans if one.fits), None)


@dataclass(frozen=True, slots=True)
class Words:
    """How lines of an API product speak: names of declared meters, and whether routes weigh differently."""

    meter_names: Mapping[str, str] = field(default_factory=dict)
    weighted: bool = False


def compare(
    candidates: Iterable[Candidate],
    *,
    demand: Demand,
    currency: str,
    held: PlanTerms | None,
    words: Words,
    own: OwnQuota = NOT_OWN,
) -> tuple[ComparedPlan, ...]:
    """Return plans with what the demand costs on them, the cheapest by month first, those without amounts last.

    Of plans that cost the same, one that refuses nothing comes first. `own`: the quota of the subscription, which
    keeps it when it changes its plan.
    """
    compared = [
        _compared(one, demand=demand, currency=currency, held=held, words=words, own=own) for one in candidates
    ]
    compared.sort(
        key=lambda one: (
            one.monthly_minor is None,
            one.monthly_minor or 0,
            bool(one.refuses),
            one.plan.position,
            one.plan.code,
        )
    )
    return tuple(compared)


def _compared(
    plan: Candidate,
    *,
    demand: Demand,
    currency: str,
    held: PlanTerms | None,
    words: Words,
    own: OwnQuota,
) -> ComparedPlan:
    terms = plan.terms
    most = most_units(terms, own)
    refused, units = _let_through(terms, demand.units, most=most)
    cost = None
    refuses = ""
    if not terms.by_quote:
        refuses = why_refused(terms, held=held, demand=demand, own=own)
        try:
            cost = plan_cost(
                terms,
                units,
                name=plan.name,
                meter_names=words.meter_names,
                weighted=words.weighted,
                own_quota_units=own.units,
                not_added=demand.not_added,
            )
        except RatingError:
            refuses = refuses or "its price cannot be worked out"
    return ComparedPlan(
        plan=plan,
        period_minor=cost.amount_minor if cost else None,
        monthly_minor=cost.monthly_minor(currency) if cost else None,
        yearly_minor=cost.yearly_minor() if cost else None,
        setup_fee_minor=setup_fee_minor(terms),
        lines=cost.lines if cost else (),
        refused_units=refused,
        refuses=refuses,
    )


def _let_through(terms: PlanTerms, units: Mapping[str, int], *, most: int | None) -> tuple[int, Mapping[str, int]]:
    """Return quota units of a period that the plan refuses, and the use of 30 days that it lets through.

    Of what calls bring with them as much less is let through as of calls.
    """
    asked = units.get(REQUESTS_METER, 0)
    in_one_period = in_period(asked, terms)
    if most is None or in_one_period <= most:
        return 0, units
    return in_one_period - most, {meter: count * most // in_one_period for meter, count in units.items()}
