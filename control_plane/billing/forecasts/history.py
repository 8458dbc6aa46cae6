"""What was used in the last weeks, day by day: what forecasts stand on. Reads only."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.forecasts.days import EVEN, HOURS, share_before
from control_plane.foundation.clock import floor_day
from control_plane.subscriptions.timeline import PhaseKind, Timeline
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

DAY = timedelta(days=1)
DAYS_READ = 56
DAYS_OF_HOURS = 14
# fewer days say little about the hours of a day
DAYS_FOR_HOURS = 3

_BY_HOUR = text("""
SELECT CAST(extract(hour FROM hour AT TIME ZONE 'UTC') AS int) AS number,
    CAST(sum(billable_units) AS bigint) AS units
FROM usage_hourly
WHERE phase_id = ANY (CAST(:phases AS text[])) AND hour >= :since AND hour < :until AND mode = 'live'
    AND amendment_id = ''
GROUP BY 1
""")


@dataclass(frozen=True, slots=True)
class History:
    """Units by meter of whole UTC days, the last one yesterday; `count` of them.

    `lately`: units of the last time, `lately_days` of a day long: of today so far, or of all since the beginning
    where no whole day lies between. `hour_shares`: the part of a day's quota units that falls on each UTC hour.
    """

    count: int
    days: dict[str, list[int]]
    lately: dict[str, int]
    lately_days: float
    hour_shares: Sequence[float]


async def usage_history(
    session: AsyncSession, timeline: Timeline, *, not_added: Collection[str], now: datetime
) -> History:
    """Return the days since the subscription began, or was last paused, at most 56; without meters `not_added`."""
    today, since = floor_day(now), _running_since(timeline, now)
    first = max(today - DAYS_READ * DAY, _whole_day(since))
    count = max(0, (today - first) // DAY)
    lately = today if count else floor_day(since)
    starts = [*(first + number * DAY for number in range(count)), *_days(lately, today)]
    asked = [
        PhasePeriod(phase.id, timeline.account_id, day, day + DAY)
        for day in starts
        for phase in timeline.phases
        # a pause that ended within a day has parted what was used before it from what was used since
        if phase.starts_at < day + DAY and (phase.ends_at is None or phase.ends_at > max(day, since))
    ]
    by_day: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    for (_, day), units in (await units_of_periods(session, asked)).items():
        for meter, used in units.items():
            if meter not in not_added:
                by_day[meter][day] += max(0, used)
    shares = await _hour_shares(session, timeline, since=max(first, today - DAYS_OF_HOURS * DAY), until=today)
    return History(
        count=count,
        days={meter: [used.get(day, 0) for day in starts[:count]] for meter, used in by_day.items()},
        lately={meter: sum(used.get(day, 0) for day in starts[count:]) for meter, used in by_day.items()},
        lately_days=share_before(now - today, shares) if count else (now - since) / DAY,
        hour_shares=shares,
    )


def _days(first: datetime, last: datetime) -> list[datetime]:
    return [first + number * DAY for number in range((last - first) // DAY + 1)]


def _running_since(timeline: Timeline, now: datetime) -> datetime:
    pauses = [phase.ends_at for phase in timeline.phases if phase.kind is PhaseKind.PAUSED]
    return max([timeline.started_at, *(end for end in pauses if end is not None and end <= now)])


def _whole_day(moment: datetime) -> datetime:
    day = floor_day(moment)
    return day if day == moment else day + DAY


async def _hour_shares(
    session: AsyncSession, timeline: Timeline, *, since: datetime, until: datetime
) -> Sequence[float]:
    if until - since < DAYS_FOR_HOURS * DAY:
        return EVEN
    phases = [phase.id for phase in timeline.phases]
    rows = await session.execute(_BY_HOUR, {"phases": phases, "since": since, "until": until})
    units = {row.number: row.units for row in rows}
    total = sum(units.values())
    return [units.get(hour, 0) / total for hour in range(HOURS)] if total > 0 else EVEN
