"""Invoice previews as values, and how one is put together. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import RatedLine
from control_plane.rating.period import rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.rate import total_minor
from control_plane.rating.runs import period_runs
from control_plane.rating.versions import REQUESTS, RatedVersion, SoldPrice, read_version


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOfPlan:
    """A price component as the catalogue holds it; `meter` is None for a flat price."""

    model: str
    meter: str | None
    params: Mapping[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedVersion:
    """A plan version with what rating needs of it. `meter_names`: of declared meters that it has prices on."""

    plan_version_id: str
    plan_code: str
    plan_name: str
    version: int
    currency: str
    quota_units: int | None
    quota_hard: bool
    prices: Sequence[PriceOfPlan] = ()
    meter_names: Mapping[str, str] = field(default_factory=dict)
    quota_on_change: str = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """A rated line and the plan version it belongs to."""

    plan_code: str
    plan_name: str
    plan_version: int
    meter: str | None
    used_units: int | None
    line: RatedLine


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaProgress:
    """Quota units used in the billing period, against the plan in force. `hard`: calls above it are refused."""

    used_units: int
    quota_units: int
    hard: bool

    @property
    def used_percent(self) -> Decimal:
        """Return the share used in per cent, cut to one decimal; above 100 in overage."""
        return Decimal(self.used_units * 1000 // self.quota_units) / 10


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePreview:
    """What the running billing period costs with the usage counted so far, if nothing else changes.

    Amounts per period are for the whole period; usage is what had been aggregated at `as_of`.
    """

    account_id: str
    account_name: str
    product_code: str
    product_name: str
    subscription_id: str
    period: BillingPeriod
    as_of: datetime
    currency: str
    lines: tuple[InvoiceLine, ...]
    total_minor: int
    used_units: Mapping[str, int] = field(default_factory=dict)
    quota: QuotaProgress | None = None
    spend_cap_minor: int | None = None

    @property
    def spend_cap_left_minor(self) -> int | None:
        """Return what the cap leaves for the rest of the period, None where there is no cap."""
        return None if self.spend_cap_minor is None else max(0, self.spend_cap_minor - self.total_minor)


def invoice_lines(
    phases: Iterable[PhaseUsage],
    versions: Mapping[str, PricedVersion],
    *,
    period: BillingPeriod,
    quota_override: int | None = None,
    weighted: bool = False,
) -> tuple[InvoiceLine, ...]:
    """Return the lines of a billing period, in the order in which plan versions ran, then of their prices.

    `quota_override` replaces what is included in requests where the plan charges above its quota.

    Raises:
        RatingError: phases overlap, or a price has unusable parameters.
    """
    rated = {key: rated_version(version, weighted=weighted) for key, version in versions.items()}
    runs = period_runs(
        phases, rated, period_start=period.start, period_end=period.end, own_quota_units=quota_override
    )
    return tuple(
        InvoiceLine(
            plan_code=versions[price.version_id].plan_code,
            plan_name=versions[price.version_id].plan_name,
            plan_version=versions[price.version_id].version,
            meter=price.meter,
            used_units=price.used_units,
            line=price.line,
        )
        for price in rate_period(runs)
    )


def rated_version(version: PricedVersion, *, weighted: bool = False) -> RatedVersion:
    """Return the version with its prices read.

    Raises:
        RatingError: a price has unusable parameters.
    """
    return read_version(
        version_id=version.plan_version_id,
        name=version.plan_name,
        currency=version.currency,
        prices=[
            SoldPrice(
                position=position,
                model=price.model,
                meter=price.meter,
                params=price.params,
                description=price.description,
            )
            for position, price in enumerate(version.prices)
        ],
        quota_units=version.quota_units,
        quota_hard=version.quota_hard,
        quota_on_change=version.quota_on_change,
        meter_names=version.meter_names,
        weighted=weighted,
    )


def lines_total_minor(lines: Iterable[InvoiceLine]) -> int:
    """Return what the lines add up to."""
    return total_minor(line.line for line in lines)


def applied_price(price: PriceOfPlan, version: PricedVersion, quota_override: int | None) -> PriceOfPlan:
    """Return the price as it applies to a subscription with a quota of its own (None: the plan's)."""
    if quota_override is None or version.quota_hard or price.model != "overage" or price.meter != REQUESTS:
        return price
    return replace(price, params={**price.params, "included": quota_override})
