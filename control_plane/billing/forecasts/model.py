"""Forecasts as values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from control_plane.billing.invoices.model import ChargeLine
from control_plane.foundation.period import BillingPeriod

DAYS_FOR_SURE = 28
DAYS_FOR_WEEK = 7
NARROW, WIDE = 0.25, 0.75


class Sureness(StrEnum):
    """How much a forecast stands on. `none`: nothing was ever used, so nothing more is expected."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Range:
    """Units or minor units at the period's end: `likely`, and four times out of five from `low` to `high`."""

    low: int
    likely: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterForecast:
    """`projected` is False where values do not add up (greatest, last, different): they stay as they are."""

    meter: str
    used_units: int
    at_end: Range
    projected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaForecast:
    """When the quota in force is used up: likely, at the earliest, at the latest; None: not in this period."""

    quota_units: int
    used_units: int
    hard: bool
    likely_at: datetime | None
    earliest_at: datetime | None
    latest_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a running billing period will come to at `until`, its end, or where the subscription ends in it.

    Amounts are minor units, `total` with discounts and taxes. `days_known`: whole days of usage that it stands on.
    `lines`: what is due in the likely case.
    """

    account_id: str
    account_name: str
    product_code: str
    product_name: str
    subscription_id: str
    period: BillingPeriod
    until: datetime
    as_of: datetime
    currency: str
    sureness: Sureness
    days_known: int
    meters: tuple[MeterForecast, ...]
    lines: tuple[ChargeLine, ...]
    subtotal_so_far_minor: int
    subtotal: Range
    total: Range
    quota: QuotaForecast | None
    spend_cap_minor: int | None

    @property
    def reaches_spend_cap(self) -> str:
        """Say whether the spend cap would be reached if it let all calls through: `yes`, `perhaps` or `no`."""
        if self.spend_cap_minor is None or self.subtotal.high < self.spend_cap_minor:
            return "no"
        return "yes" if self.subtotal.likely >= self.spend_cap_minor else "perhaps"


def how_sure(*, days_known: int, used_units: int, low: float, likely: float, high: float) -> Sureness:
    """Return how sure a forecast of units is, by how long they are known and how wide its range is."""
    expected = used_units + likely
    width = (high - low) / expected if expected else 0.0
    if days_known < DAYS_FOR_WEEK or width > WIDE:
        return Sureness.LOW
    return Sureness.HIGH if days_known >= DAYS_FOR_SURE and width <= NARROW else Sureness.MEDIUM
