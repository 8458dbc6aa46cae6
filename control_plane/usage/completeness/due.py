"""Which hours are to be checked: sealed anew, due for another look, or counted and never heard of."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour, from_ms, to_ms
from control_plane.usage.model import HourKey

HOUR = timedelta(hours=1)
# a seal is known by the moment it was made; the transaction that made it may commit a little later
COMMIT_SPAN = timedelta(minutes=5)
SOON = timedelta(minutes=10)
SAMPLED_DAYS = 30
SAMPLED_HOURS = 3
SAMPLED_ACCOUNTS = 20

_SEALED = text("""
SELECT hours.account_id, hours.hour, hours.revision, hours.sealed_at
FROM usage_hours AS hours
LEFT JOIN usage_hour_checks AS checks ON checks.account_id = hours.account_id AND checks.hour = hours.hour
WHERE hours.sealed_at >= :since AND hours.hour >= :oldest
    AND checks.revision IS DISTINCT FROM hours.revision
    AND (checks.recheck_at IS NULL OR checks.recheck_at > :soon)
ORDER BY hours.sealed_at, hours.account_id, hours.hour
LIMIT :limit
""")
_DUE = text("""
SELECT checks.account_id, checks.hour, coalesce(hours.revision, 0), hours.sealed_at
FROM usage_hour_checks AS checks
LEFT JOIN usage_hours AS hours ON hours.account_id = checks.account_id AND hours.hour = checks.hour
WHERE checks.recheck_at <= :now AND checks.hour >= :oldest AND (hours.hour IS NULL OR hours.sealed_at IS NOT NULL)
ORDER BY checks.recheck_at, checks.account_id, checks.hour
LIMIT :limit
""")
_UNHEARD = text("""
SELECT DISTINCT counted.account_id, counted.hour
FROM usage_completeness AS counted
WHERE counted.state <> 'complete' AND counted.checked_at IS NULL
    AND counted.hour >= :oldest AND counted.hour <= :last_hour
    AND NOT EXISTS (
        SELECT 1 FROM usage_hours AS hours
        WHERE hours.account_id = counted.account_id AND hours.hour = counted.hour)
ORDER BY counted.hour, counted.account_id
LIMIT :limit
""")
_SAMPLE = text("""
UPDATE usage_hour_checks AS checks SET recheck_at = :now
FROM (
    SELECT account_id, hour FROM usage_hour_checks
    WHERE hour = ANY(CAST(:hours AS timestamptz[])) AND recheck_at IS NULL
    ORDER BY checked_at LIMIT :limit
) AS sampled
WHERE checks.account_id = sampled.account_id AND checks.hour = sampled.hour
""")
_AGAIN = text("""
UPDATE usage_hour_checks SET recheck_at = :now
WHERE hour >= :start AND hour < :end
    AND (CAST(:account_id AS text) IS NULL OR account_id = CAST(:account_id AS text))
""")


@dataclass(frozen=True, slots=True)
class DueHour:
    """An hour to check, at the revision at which it was sealed; 0 where usage has never heard of it."""

    key: HourKey
    revision: int
    sealed_at: datetime | None


async def sealed_hours(
    session: AsyncSession, *, since: datetime, oldest: datetime, now: datetime, limit: int
) -> Sequence[DueHour]:
    """Return hours sealed lately at a revision that nobody has checked, in the order of their seals.

    Those that were put off, or are due anyway, within ten minutes come by then.
    """
    limits = {"since": since - COMMIT_SPAN, "oldest": oldest, "soon": now + SOON, "limit": limit}
    return [_due(*row) for row in await session.execute(_SEALED, limits)]


async def due_hours(session: AsyncSession, *, oldest: datetime, now: datetime, limit: int) -> Sequence[DueHour]:
    """Return hours whose next look is due, as far as they are sealed."""
    return [_due(*row) for row in await session.execute(_DUE, {"oldest": oldest, "now": now, "limit": limit})]


async def unheard_hours(
    session: AsyncSession, *, oldest: datetime, shipped_until: datetime, limit: int
) -> Sequence[DueHour]:
    """Return hours in which calls were counted and of which no event at all has come."""
    limits = {"oldest": oldest, "last_hour": shipped_until - HOUR, "limit": limit}
    rows = await session.execute(_UNHEARD, limits)
    return [_due(account_id, hour, 0, None) for account_id, hour in rows]


async def shipped_until(session: AsyncSession, *, lateness: timedelta, now: datetime) -> datetime:
    """Return the moment up to which everything has been collected, as sealing reckons it."""
    slowest = await session.scalar(text("SELECT min(shipped_up_to_ms) FROM shippers WHERE retired_at IS NULL"))
    return now - lateness if slowest is None else min(now - lateness, from_ms(slowest))


async def sample_hours(session: AsyncSession, *, now: datetime, chance: random.Random) -> None:
    """Have a few hours of the last 30 days, which were found in order, looked at again."""
    hours = [floor_hour(now) - chance.randrange(2, SAMPLED_DAYS * 24) * HOUR for _ in range(SAMPLED_HOURS)]
    await session.execute(_SAMPLE, {"hours": hours, "now": now, "limit": SAMPLED_HOURS * SAMPLED_ACCOUNTS})


async def check_again(
    session: AsyncSession, *, account_id: str | None, start: datetime, end: datetime, now: datetime
) -> int:
    """Have the hours in [start, end) that were checked before looked at again; returns how many. Idempotent."""
    found = await session.execute(_AGAIN, {"account_id": account_id, "start": start, "end": end, "now": now})
    return int(getattr(found, "rowcount", 0))


def _due(account_id: str, hour: datetime, revision: int, sealed_at: datetime | None) -> DueHour:
    return DueHour(HourKey(account_id, to_ms(hour)), revision, sealed_at)
