"""How often an hour is recomputed: one with millions of events costs more each time, and must not hold up others.

An hour is redone whole whenever it has new events. What that took decides when it may be done again, so that one
hour never takes more than a small part of the aggregator's time. And heavy hours are done in a lane of their own:
others do not wait for them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.hours import hour_arrays
from control_plane.usage.model import HourKey

HOUR = timedelta(hours=1)

# light hours keep 0 and NULL, and cost no write
_NOTE = text("""
UPDATE usage_hours AS known SET recompute_ms = done.ms, recompute_after = done.after
FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]), CAST(:costs_ms AS int[]),
    CAST(:after AS timestamptz[])) AS done (account_id, hour, ms, after)
WHERE known.account_id = done.account_id AND known.hour = done.hour
    AND (known.recompute_ms, known.recompute_after) IS DISTINCT FROM (done.ms, done.after)
""")


class Lane(StrEnum):
    """Which hours an aggregator takes: those that were light when last done, the heavy ones, or all."""

    ALL = "all"
    LIGHT = "light"
    HEAVY = "heavy"


@dataclass(frozen=True, slots=True)
class Pace:
    """An hour is done again no sooner than `rest_factor` times what it took, but at most after `longest_rest`.

    The first look after `lateness` has passed, which decides whether an hour can be sealed, waits for nothing.
    What takes less than `ignored_ms` needs no rest; from `heavy_ms` on an hour is heavy.
    """

    rest_factor: int = 10
    longest_rest: timedelta = timedelta(seconds=60)
    ignored_ms: int = 20
    heavy_ms: int = 250
    lateness: timedelta = timedelta(seconds=120)

    def rest(self, cost_ms: int) -> timedelta:
        """Return how long an hour rests that took `cost_ms`."""
        if cost_ms < self.ignored_ms:
            return timedelta()
        return min(self.longest_rest, timedelta(milliseconds=cost_ms * self.rest_factor))


NO_PACE = Pace(rest_factor=0)


def choice(pace: Pace, lane: Lane, now: datetime) -> dict[str, object]:
    """Return the parameters of `MAY_BE_TAKEN`."""
    return {
        "now": now,
        "closed_hour": now - HOUR - pace.lateness,
        "closed_after": HOUR + pace.lateness,
        "lane": lane.value,
        "heavy_ms": pace.heavy_ms,
    }


# `known` is the hour's row in usage_hours
MAY_BE_TAKEN = """
(
    known.recompute_after IS NULL OR known.recompute_after <= :now
    OR (known.hour <= :closed_hour AND known.aggregated_at < known.hour + CAST(:closed_after AS interval))
) AND (
    :lane = 'all' OR (:lane = 'heavy') = (known.recompute_ms >= :heavy_ms)
)
"""


def shared_costs(hours: Iterable[HourKey], events: Mapping[HourKey, int], *, took_ms: int) -> dict[HourKey, int]:
    """Return what each of these hours cost of the time that all took together, by their numbers of events."""
    total = sum(events.values())
    return {key: took_ms * events.get(key, 0) // total if total else 0 for key in hours}


async def note_costs(session: AsyncSession, costs_ms: Mapping[HourKey, int], *, pace: Pace, now: datetime) -> None:
    """Note what hours took, and when they may be done again. The caller holds their locks."""
    hours = sorted(costs_ms)
    rests = [pace.rest(costs_ms[key]) for key in hours]
    await session.execute(
        _NOTE,
        {
            **hour_arrays(hours),
            "costs_ms": [costs_ms[key] if costs_ms[key] >= pace.ignored_ms else 0 for key in hours],
            "after": [now + rest if rest else None for rest in rests],
        },
    )
