"""The time ahead, by day and by phase, weighed by the hours in which calls come. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.foundation.clock import floor_day
from control_plane.subscriptions.timeline import PhaseKind, TimelinePhase

DAY = timedelta(days=1)
HOURS = 24
EVEN = (1 / HOURS,) * HOURS


@dataclass(frozen=True, slots=True)
class TimeAhead:
    """From `now` to `until`: of each day from today on the part that is to come, and how it falls on phases."""

    now: datetime
    until: datetime
    days: tuple[float, ...]
    of_phases: Mapping[str, tuple[float, ...]]

    def moment_of(self, by_day: Sequence[float], units: float) -> datetime | None:
        """Return when so many units of those expected by day are used up, None if not before the end."""
        if units <= 0:
            return self.now
        for number, expected in enumerate(by_day):
            if units <= expected:
                start = max(self.now, floor_day(self.now) + number * DAY)
                end = min(self.until, floor_day(self.now) + (number + 1) * DAY)
                return start + (end - start) * (units / expected)
            units -= expected
        return None


def time_ahead(
    phases: Sequence[TimelinePhase], *, now: datetime, until: datetime, hour_shares: Sequence[float] = EVEN
) -> TimeAhead:
    """Return the time from `now` to `until` in which calls can come: none comes while a subscription is paused.

    `hour_shares`: the part of a day's units that falls on each UTC hour; they add up to 1.
    """
    today = floor_day(now)
    count = max(0, -((today - until) // DAY))
    of_phases = {
        phase.id: tuple(
            _part_of_day(
                max(phase.starts_at, now), min(phase.ends_at or until, until), today + day * DAY, hour_shares
            )
            for day in range(count)
        )
        for phase in phases
        if phase.kind is not PhaseKind.PAUSED
    }
    days = tuple(sum(parts[day] for parts in of_phases.values()) for day in range(count))
    return TimeAhead(now, until, days, of_phases)


def _part_of_day(start: datetime, end: datetime, day: datetime, hour_shares: Sequence[float]) -> float:
    first = min(max(start, day), day + DAY) - day
    last = min(max(end, day), day + DAY) - day
    return max(0.0, share_before(last, hour_shares) - share_before(first, hour_shares))


def share_before(time_of_day: timedelta, hour_shares: Sequence[float]) -> float:
    """Return the part of a day's units that falls before a time of the day."""
    hours, rest = divmod(time_of_day / timedelta(hours=1), 1)
    whole = int(hours)
    return sum(hour_shares[:whole]) + (rest * hour_shares[whole] if rest else 0.0)
