"""Billing periods: half-open, counted from an anchor by the wall clock of a time zone, on full UTC hours.

Every period begins at `anchor + n months` (or years), always reckoned from the anchor itself: an anchor on the
31st begins on the last day of a short month and is back on the 31st in the next long one.

The months are those of a time zone: what begins at midnight in Berlin does so in summer and in winter. Usage is
kept by UTC hours, so a start is cut down to the UTC hour that holds it: midnight in Kathmandu (18:15 UTC) is 18:00
UTC. An anchor is such a start, and stands for the full local hour that begins within its UTC hour.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from control_plane.foundation.clock import as_utc, floor_hour, to_ms

Interval = Literal["month", "year"]
MONTHS = {"month": 1, "year": 12}
UTC_ZONE = "UTC"
HOUR_SECONDS = 3600
SHORTEST_MONTH = 28


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


def period_containing(
    moment: datetime, anchor: datetime, interval: Interval | str, time_zone: str
) -> BillingPeriod:
    """Return the one period that holds the moment; periods reach back before the anchor too.

    An anchor off the full hour counts as the hour that holds it. A local time that the clock shows twice is the
    one of the two that the anchor is, else the first; one that the clock jumps over is as long after the jump.

    Raises:
        NaiveTimeError: `moment` or `anchor` has no time zone.
        KeyError: `interval` is neither `month` nor `year`, or `time_zone` (an IANA name) is not known.
    """
    moment, clock = as_utc(moment), _wall_clock(anchor, time_zone)
    step = MONTHS[interval]
    # by the UTC month of the moment: one step off either way, two where the clock's day is another than UTC's
    number = ((moment.year - clock.year) * 12 + moment.month - clock.month) // step
    start = _start(clock, number * step)
    if start > moment:
        while start > moment:
            number, end, start = number - 1, start, _start(clock, (number - 1) * step)
        return BillingPeriod(start, end)
    end = _start(clock, (number + 1) * step)
    while end <= moment:
        number, start, end = number + 1, end, _start(clock, (number + 2) * step)
    return BillingPeriod(start, end)


def next_period(
    period: BillingPeriod, anchor: datetime, interval: Interval | str, time_zone: str
) -> BillingPeriod:
    """Return the period that begins where this one ends."""
    return period_containing(period.end, anchor, interval, time_zone)


def anchor_on_day(day: int, time_zone: str, *, now: datetime) -> datetime:
    """Return the last local midnight of that day of a month (1 to 31) up to `now`, cut down to the full UTC hour.

    Months without that day, or where the clock jumped over its midnight, are passed over: periods counted from
    the anchor then begin on that day wherever there is one.

    Raises:
        KeyError: `time_zone` is not known.
    """
    local = as_utc(now).astimezone(_zone(time_zone))
    year, month = local.year, local.month
    while True:
        if day <= calendar.monthrange(year, month)[1]:
            midnight = datetime(year, month, day, tzinfo=local.tzinfo)
            moment = as_utc(midnight)
            if moment <= now and moment.astimezone(local.tzinfo).hour == 0:
                return floor_hour(moment)
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)


def _start(clock: datetime, months: int) -> datetime:
    moved = _add_months(clock, months)
    return moved if moved.tzinfo is UTC else floor_hour(moved)


def _wall_clock(anchor: datetime, time_zone: str) -> datetime:
    """Return the anchor as a full hour of the zone's clock."""
    anchor = as_utc(anchor)
    if time_zone == UTC_ZONE:
        return anchor if not (anchor.minute or anchor.second or anchor.microsecond) else floor_hour(anchor)
    return _local_hour(anchor, time_zone)


# many subscriptions share an anchor; looking up its offset is the dear part
@lru_cache(maxsize=10_000)
def _local_hour(anchor: datetime, time_zone: str) -> datetime:
    anchor = floor_hour(anchor)
    local = anchor.astimezone(_zone(time_zone))
    past_hour = local.minute * 60 + local.second
    # reckoned in UTC: between the two the clock may be put back
    return (anchor + timedelta(seconds=-past_hour % HOUR_SECONDS)).astimezone(local.tzinfo)


@lru_cache(maxsize=1_000)
def _zone(time_zone: str) -> ZoneInfo:
    return ZoneInfo(time_zone)


def _add_months(clock: datetime, months: int) -> datetime:
    year, month_index = divmod(clock.year * 12 + clock.month - 1 + months, 12)
    day = clock.day
    # looking up how many days a month has takes as long as all the rest
    if day > SHORTEST_MONTH:
        day = min(day, calendar.monthrange(year, month_index + 1)[1])
    return clock.replace(year=year, month=month_index + 1, day=day)
