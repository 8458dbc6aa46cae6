"""Invoice previews as values, and how one is put together. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import RatedLine, Unit
from control_plane.rating.models import read_price
from control_plane.rating.phases import PhaseUsage, VersionUsage, merge_phases
from control_plane.rating.rate import rate, total_minor
from control_plane.rating.words import unit_named, unit_of

REQUESTS = "requests"
# where routes weigh differently, one request is not one unit
WEIGHTED_REQUESTS = Unit(singular="request unit", plural="request units")


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
    merged = merge_phases(phases, period_start=period.start, period_end=period.end)
    lines: list[InvoiceLine] = []
    for usage in merged:
        version = versions[usage.plan_version_id]
        for price in version.prices:
            applied = applied_price(price, version, quota_override)
            line = _rated(applied, usage, version, weighted=weighted, name_plan=len(merged) > 1)
            lines.append(
                InvoiceLine(
                    plan_code=version.plan_code,
                    plan_name=version.plan_name,
                    plan_version=version.version,
                    meter=price.meter,
                    used_units=None if price.meter is None else usage.units.get(price.meter, 0),
                    line=line,
                )
            )
    return tuple(lines)


def lines_total_minor(lines: Iterable[InvoiceLine]) -> int:
    """Return what the lines add up to."""
    return total_minor(line.line for line in lines)


def applied_price(price: PriceOfPlan, version: PricedVersion, quota_override: int | None) -> PriceOfPlan:
    """Return the price as it applies to a subscription with a quota of its own (None: the plan's)."""
    if quota_override is None or version.quota_hard or price.model != "overage" or price.meter != REQUESTS:
        return price
    return replace(price, params={**price.params, "included": quota_override})


def _rated(
    price: PriceOfPlan, usage: VersionUsage, version: PricedVersion, *, weighted: bool, name_plan: bool
) -> RatedLine:
    unit = WEIGHTED_REQUESTS if weighted and price.meter == REQUESTS else None
    if price.meter and price.meter in version.meter_names:
        unit = unit_named(version.meter_names[price.meter])
    description = price.description or _default_description(price, version)
    (line,) = rate(
        read_price(price.model, price.params),
        quantity=usage.units.get(price.meter, 0) if price.meter else 0,
        currency=version.currency,
        meter=price.meter,
        unit=unit,
        share=usage.share,
        description=f"{version.plan_name}: {description}" if name_plan else description,
    )
    return line


def _default_description(price: PriceOfPlan, version: PricedVersion) -> str:
    if price.meter is None:
        return f"{version.plan_name} plan"
    if price.meter in version.meter_names:
        return version.meter_names[price.meter]
    plural = unit_of(price.meter).plural
    return f"{plural[:1].upper()}{plural[1:]}"
