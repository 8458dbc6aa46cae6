"""Days are rolled up whole from their hours, as hours are from their events: never added to.

The row of `usage_days` is locked before the generation of the touched mark is read, and that before the hours are
read: whoever changes an hour later raises the generation, and the mark stays. While a day has a mark, readers take
its hours (see `usage.figures`), so figures are never behind; days are rolled up for speed, not for freshness.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.daily.marks import day_arrays

log = structlog.get_logger(__name__)

DAY = timedelta(days=1)
_ROLL_UP = text((resources.files("control_plane.usage.daily") / "rollup.sql").read_text(encoding="utf-8"))
_OPEN_DAYS = text("""
INSERT INTO usage_days (account_id, day)
SELECT account_id, day FROM touched_days
WHERE day <= :last_day AND touched_at <= :quiet_since
ORDER BY day, account_id LIMIT :limit
ON CONFLICT DO NOTHING
""")
_LOCK_DAYS = text("""
SELECT known.account_id, known.day, known.hours_dropped_at IS NOT NULL
FROM touched_days AS touched JOIN usage_days AS known USING (account_id, day)
WHERE touched.day <= :last_day AND touched.touched_at <= :quiet_since
ORDER BY touched.day, touched.account_id LIMIT :limit
FOR UPDATE OF known SKIP LOCKED
""")
_READ_GENERATIONS = text("""
SELECT account_id, day, generation FROM touched_days
WHERE (account_id, day) IN (SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])))
""")
_FORGET = text("""
DELETE FROM usage_daily
WHERE (account_id, day) IN (SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])))
""")
_NOTE = text("""
UPDATE usage_days SET rolled_up_at = :now
WHERE (account_id, day) IN (SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])))
""")
# A mark that is locked is being raised at this moment: it is not ours to clear.
_CLEAR_MARKS = text("""
WITH free AS (
    SELECT touched.account_id, touched.day
    FROM touched_days AS touched
    JOIN unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[]), CAST(:generations AS bigint[]))
        AS done (account_id, day, generation) USING (account_id, day)
    WHERE touched.generation = done.generation
    ORDER BY touched.account_id, touched.day
    FOR UPDATE OF touched SKIP LOCKED
)
DELETE FROM touched_days AS mark USING free
WHERE mark.account_id = free.account_id AND mark.day = free.day
""")


@dataclass(frozen=True, slots=True)
class DailyConfig:
    """A day is rolled up `after_its_end` at the earliest, and when its hours have been quiet for `quiet`."""

    after_its_end: timedelta = timedelta(minutes=10)
    quiet: timedelta = timedelta(minutes=1)
    pause_seconds: float = 5.0
    days_per_pass: int = 200


async def roll_up_days(session: AsyncSession, *, config: DailyConfig, now: datetime) -> int:
    """Roll up days that are over and quiet; returns how many. Days that others work on are passed over.

    Idempotent. The caller commits. A day whose hours were dropped keeps its figures.
    """
    limits = {
        "last_day": now - DAY - config.after_its_end,
        "quiet_since": now - config.quiet,
        "limit": config.days_per_pass,
    }
    await session.execute(_OPEN_DAYS, limits)
    locked = [(account_id, day, dropped) for account_id, day, dropped in await session.execute(_LOCK_DAYS, limits)]
    if not locked:
        return 0
    names = day_arrays([(account_id, day) for account_id, day, _ in locked])
    generations = {
        (account_id, day): generation
        for account_id, day, generation in await session.execute(_READ_GENERATIONS, names)
    }
    for account_id, day, dropped in locked:
        if dropped and (account_id, day) in generations:
            metrics.FAILURES.labels("daily", "dropped").inc()
            log.error("a day changed whose hours are no longer kept", account_id=account_id, day=str(day))
    days = [(account_id, day) for account_id, day, dropped in locked if not dropped]
    names = day_arrays([found for found in days if found in generations])
    await session.execute(_FORGET, names)
    await session.execute(_ROLL_UP, names)
    await session.execute(_NOTE, {**names, "now": now})
    cleared = sorted(generations)
    await session.execute(
        _CLEAR_MARKS, {**day_arrays(cleared), "generations": [generations[found] for found in cleared]}
    )
    metrics.DAYS_ROLLED_UP.inc(len(names["days"]))
    return len(locked)


async def run_daily_rollups(
    *,
    config: DailyConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Roll up days until `stop`. Failures are counted, logged and tried again."""

    async def one_round() -> float:
        async with sessions() as session, session.begin():
            done = await roll_up_days(session, config=config, now=clock())
        return config.pause_seconds if done < config.days_per_pass else 0

    await repeat("daily-rollup", one_round, stop=stop, failures=metrics.FAILURES.labels("daily", "roll up"))
