"""Books of what happened to a subscription, kept by hand: they say what is due without any invoice."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from control_plane.foundation.period import period_containing
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.billing.invoices.billing_kit import commitment, flat, overage, setup_fee


@dataclass(frozen=True)
class Sold:
    """A plan: a fee each period, a price for each request above those included, a setup fee, a minimum of use."""

    product: str
    fee: str
    price: str
    included: int
    setup: str = "0"
    minimum: str = "0"

    def terms(self) -> dict[str, Any]:
        """Return the plan's terms for the catalogue."""
        prices = [flat(self.fee), overage(self.price, self.included)]
        prices += [setup_fee(self.setup)] if Decimal(self.setup) else []
        prices += [commitment(self.minimum)] if Decimal(self.minimum) else []
        return {"product": self.product, "quota_units": self.included, "prices": tuple(prices)}


PLANS = {
    "weather-s": Sold("weather", "49.00", "0.0015", 1_000),
    "weather-l": Sold("weather", "199.00", "0.0006", 5_000, setup="25.00"),
    "maps-s": Sold("maps", "10.01", "0.013", 100, minimum="33.33"),
    "maps-l": Sold("maps", "99.99", "0.007", 2_000, setup="7.77"),
}
ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin")
PAUSED = "paused"
# off the fees of every other subscription
DISCOUNT = Decimal("0.4")
MS = timedelta(milliseconds=1)


def cents(amount: Decimal) -> int:
    return int((amount * 100).to_integral_value(ROUND_HALF_UP))


@dataclass
class Books:
    """What happened to one subscription; says by itself what is due for it."""

    subscription: Subscription
    plans: list[tuple[datetime, str]]
    ends_at: datetime | None = None
    credited: bool = False
    used: list[list[Any]] = field(default_factory=list)
    discounted: bool = False

    def plan_at(self, moment: datetime) -> str:
        return [code for since, code in self.plans if since <= moment][-1]

    @property
    def paused(self) -> bool:
        return self.plans[-1][1] == PAUSED

    def due_minor(self) -> int:
        """Return all that is due to the end of the subscription; discounts to about a cent for each invoice."""
        parts = [self._due(code, start) for code in PLANS for start in self._starts()]
        left = 1 - DISCOUNT if self.discounted else 1
        return round(sum(fixed for fixed, _ in parts) * left) + sum(by_use for _, by_use in parts)

    def _period(self, moment: datetime) -> tuple[datetime, datetime]:
        row = self.subscription
        period = period_containing(moment, row.anchor_at, row.interval, row.time_zone)
        return period.start, period.end

    def _starts(self) -> list[datetime]:
        starts, moment = [], self.subscription.started_at
        while moment < self.ends_at:
            start, moment = self._period(moment)
            starts.append(start)
        return starts

    def _due(self, code: str, start: datetime) -> tuple[int, int]:
        """Return what a plan costs in a billing period before and by use."""
        sold = PLANS[code]
        _, end = self._period(start)
        ends_at = self.ends_at if self.credited or self.ends_at >= end else end
        bounds = [*(since for since, _ in self.plans), ends_at]
        covered = timedelta(0)
        for (since, running), until in zip(self.plans, bounds[1:], strict=True):
            if running == code:
                covered += max(timedelta(0), min(until, end) - max(since, start))
        part = Decimal(covered // MS) / Decimal((end - start) // MS)
        units = sum(count for at, count, *_ in self.used if start <= at < end and self.plan_at(at) == code)
        by_use = cents(Decimal(sold.price) * max(0, units - sold.included))
        missing = max(0, cents(Decimal(sold.minimum) * part - Decimal(by_use) / 100))
        fees = [since for since, other in self.plans if other != PAUSED and Decimal(PLANS[other].setup)]
        setup = sold.setup if fees and start <= fees[0] < end and (fees[0], code) in self.plans else "0"
        return cents(Decimal(sold.fee) * part) + cents(Decimal(setup)), by_use + missing
