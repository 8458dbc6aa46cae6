"""Billing periods: half-open, in UTC, counted from an anchor.

Every period begins at `anchor + n months` (or years), always reckoned from the anchor itself: an anchor on the
31st begins on the last day of a short month and is back on the 31st in the next long one.
"""

import calendar
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from control_plane.foundation.clock import as_utc, to_ms

Interval = Literal["month", "year"]
MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """[start, end): a moment at `end` belongs to the next period."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def start_ms(self) -> int:
        return to_ms(self.start)

    @property
    def end_ms(self) -> int:
        return to_ms(self.end)


def period_containing(moment: datetime, anchor: datetime, interval: Interval | str) -> BillingPeriod:
    """Return the one period that holds the moment; periods reach back before the anchor too.

    Raises:
        NaiveTimeError: `moment` or `anchor` has no time zone.
        KeyError: `interval` is neither `month` nor `year`.
    """
    moment, anchor = as_utc(moment), as_utc(anchor)
    step = MONTHS[interval]
    months_apart = (moment.year - anchor.year) * 12 + moment.month - anchor.month
    number = months_apart // step
    if _add_months(anchor, number * step) > moment:
        number -= 1
    return BillingPeriod(_add_months(anchor, number * step), _add_months(anchor, (number + 1) * step))


def next_period(period: BillingPeriod, anchor: datetime, interval: Interval | str) -> BillingPeriod:
    """Return the period that begins where this one ends."""
    return period_containing(period.end, anchor, interval)


def _add_months(anchor: datetime, months: int) -> datetime:
    year, month_index = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    day = min(anchor.day, calendar.monthrange(year, month_index + 1)[1])
    return anchor.replace(year=year, month=month_index + 1, day=day)
