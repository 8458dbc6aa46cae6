"""Billing periods: steps of a calendar from an anchor, to the second, in UTC.

A step keeps the anchor's day of the month where the month has it and takes the last day where not: an anchor on
the 31st gives 28 February, then 31 March again.
"""

import calendar
from datetime import UTC, datetime, timedelta

DAY = 86_400
SECONDS = {"day": DAY, "week": 7 * DAY}


def step(anchor: int, interval: str, count: int, number: int) -> int:
    """The moment `number` intervals after the anchor; negative numbers go back."""
    if interval in SECONDS:
        return anchor + SECONDS[interval] * count * number
    months = number * count * (12 if interval == "year" else 1)
    return add_months(anchor, months)


def add_months(moment: int, months: int) -> int:
    at = datetime.fromtimestamp(moment, UTC)
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    day = min(at.day, calendar.monthrange(year, month + 1)[1])
    return int(at.replace(year=year, month=month + 1, day=day).timestamp())


def period_of(anchor: int, interval: str, count: int, moment: int) -> tuple[int, int]:
    """The whole period that holds `moment`: start <= moment < end. The anchor may lie ahead of it."""
    number = _guess(anchor, interval, count, moment)
    while step(anchor, interval, count, number) > moment:
        number -= 1
    while step(anchor, interval, count, number + 1) <= moment:
        number += 1
    return step(anchor, interval, count, number), step(anchor, interval, count, number + 1)


def _guess(anchor: int, interval: str, count: int, moment: int) -> int:
    length = {"month": 30 * DAY, "year": 365 * DAY}.get(interval) or SECONDS[interval]
    return (moment - anchor) // (length * count)


def next_anchor(now: int, config: dict[str, int | None]) -> int:
    """The first moment from `now` on that fits a `billing_cycle_anchor_config`.

    A day the month lacks is its last one; time of day that is not given is that of `now`.
    """
    start = datetime.fromtimestamp(now, UTC)
    clock = {
        name: int(getattr(start, name) if (given := config.get(name)) is None else given) for name in TIME_OF_DAY
    }
    month = start.replace(day=1)
    while True:
        wanted = config.get("month")
        day = min(int(config["day_of_month"] or 1), calendar.monthrange(month.year, month.month)[1])
        found = month.replace(day=day, hour=clock["hour"], minute=clock["minute"], second=clock["second"])
        if found >= start and (wanted is None or wanted == month.month):
            return int(found.timestamp())
        month = (month + timedelta(days=32)).replace(day=1)


TIME_OF_DAY = ("hour", "minute", "second")
