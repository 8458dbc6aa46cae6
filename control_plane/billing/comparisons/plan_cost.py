"""What use of 30 days would cost under terms of a plan, by the steps of invoices. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal

from control_plane.catalog.model import PlanTerms
from control_plane.foundation.money import Money, round_minor
from control_plane.rating.period import ChargeKind, RatedPrice, rate_period
from control_plane.rating.runs import Run, Stretch
from control_plane.rating.versions import RatedVersion, SoldPrice, read_version

DEMAND_DAYS = 30
DAYS_OF_INTERVAL = {"month": DEMAND_DAYS, "year": 365}
MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What a whole billing period of a plan costs; a setup fee, which is due once, is not in it."""

    interval: str
    lines: tuple[RatedPrice, ...]

    @property
    def amount_minor(self) -> int:
        return sum(line.line.amount_minor for line in self.lines)

    def monthly_minor(self, currency: str) -> int:
        """Return what it comes to each month: a yearly plan a twelfth."""
        return round_minor(_major(self.amount_minor, currency) / MONTHS[self.interval], currency)

    def yearly_minor(self) -> int:
        """Return what it comes to each year."""
        return self.amount_minor * (12 // MONTHS[self.interval])

    @property
    def usage_minor(self) -> int:
        return sum(line.line.amount_minor for line in self.lines if line.kind is ChargeKind.USAGE)


def plan_cost(
    terms: PlanTerms,
    units: Mapping[str, int],
    *,
    name: str = "",
    meter_names: Mapping[str, str] | None = None,
    weighted: bool = False,
    own_quota_units: int | None = None,
    not_added: Collection[str] = (),
) -> PlanCost:
    """Return what the use of 30 days costs; `terms` are those in one currency. Of yearly plans, that of a year.

    `own_quota_units`: the subscription's own quota, which stands in place of a plan's. `not_added`: meters whose
    values do not add up, which are no more in a year than in 30 days.

    Raises:
        RatingError: a price has unusable parameters, or units are negative.
    """
    version = rated_terms(terms, name=name, meter_names=meter_names, weighted=weighted)
    used = {meter: count if meter in not_added else in_period(count, terms) for meter, count in units.items()}
    run = Run(
        version=version,
        period_ms=1,
        stretches=(Stretch(covered_ms=1, units=used),),
        own_quota_units=own_quota_units,
    )
    return PlanCost(terms.interval, rate_period((run,)))


def rated_terms(
    terms: PlanTerms,
    *,
    version_id: str = "",
    name: str = "",
    meter_names: Mapping[str, str] | None = None,
    weighted: bool = False,
) -> RatedVersion:
    """Return terms in one currency as rating needs them, as if they had been published.

    Raises:
        RatingError: a price has unusable parameters.
    """
    return read_version(
        version_id=version_id,
        name=name,
        currency=terms.currency,
        prices=[
            SoldPrice(
                position=position,
                model=price.model,
                meter=price.meter,
                params=price.params,
                description=price.description,
            )
            for position, price in enumerate(terms.prices)
        ],
        quota_units=terms.quota_units,
        quota_hard=terms.quota_hard,
        quota_on_change=terms.quota_on_change,
        meter_names=meter_names,
        weighted=weighted,
    )


def in_period(units: int, terms: PlanTerms) -> int:
    """Return the use of 30 days as one of the plan's billing period, rounded up."""
    return -(-units * DAYS_OF_INTERVAL[terms.interval] // DEMAND_DAYS)


def setup_fee_minor(terms: PlanTerms) -> int:
    """Return what is due once; `terms` in one currency."""
    fees = [Decimal(price.params["amount"]) for price in terms.prices if price.model == "setup_fee"]
    return round_minor(sum(fees, Decimal(0)), terms.currency)


def _major(amount_minor: int, currency: str) -> Decimal:
    return Money(amount_minor, currency).as_decimal()
