"""Hourly figures are dropped when their day is long past: the daily ones stay.

Only days that were rolled up, are sealed whole and have no mark lose their hours. The setting is never shorter
than raw events are kept, so no hour that could still be recomputed is dropped.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_day, utc_now
from control_plane.usage import metrics
from control_plane.usage.daily.tables import UsageDay
from control_plane.usage.loops import Pauses, sleep_unless

log = structlog.get_logger(__name__)

_CHOOSE = text("""
SELECT account_id, day FROM usage_days AS found
WHERE hours_dropped_at IS NULL AND rolled_up_at IS NOT NULL AND day < :before
    AND NOT EXISTS (
        SELECT 1 FROM touched_days AS mark WHERE mark.account_id = found.account_id AND mark.day = found.day)
    AND NOT EXISTS (
        SELECT 1 FROM touched_hours AS mark
        WHERE mark.account_id = found.account_id AND mark.hour >= day AND mark.hour < day + interval '24 hours')
    AND NOT EXISTS (
        SELECT 1 FROM usage_hours AS hours
        WHERE hours.account_id = found.account_id AND hours.hour >= day AND hours.hour < day + interval '24 hours'
            AND hours.sealed_at IS NULL)
ORDER BY day, account_id LIMIT :limit
FOR UPDATE OF found SKIP LOCKED
""")
# an hour that is locked is being changed at this moment: its day keeps its hours for now
_LOCK_HOURS = text("""
SELECT 1 FROM usage_hours AS hours
JOIN unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS chosen (account_id, day)
    ON hours.account_id = chosen.account_id AND hour >= day AND hour < day + interval '24 hours'
ORDER BY hours.account_id, hour
FOR UPDATE OF hours NOWAIT
""")
_DROP = text("""
DELETE FROM usage_hourly AS row
USING unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS chosen (account_id, day)
WHERE row.account_id = chosen.account_id AND row.hour >= day AND row.hour < day + interval '24 hours'
""")
_NOTE = text("""
UPDATE usage_days AS found SET hours_dropped_at = :now
FROM unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS chosen (account_id, day)
WHERE found.account_id = chosen.account_id AND found.day = chosen.day
""")


@dataclass(frozen=True, slots=True)
class HourlyRetentionConfig:
    """Hours are kept for `keep_days` after their day, then only the day's figures."""

    keep_days: int = 400
    pause_seconds: float = 600.0
    days_per_pass: int = 500


async def drop_old_hours(session: AsyncSession, *, config: HourlyRetentionConfig, now: datetime) -> int:
    """Drop the hours of days long past and return of how many days. Idempotent; the caller commits.

    Raises:
        sqlalchemy.exc.OperationalError: an hour of them is being recomputed at this moment; to be called again.
    """
    before = floor_day(now) - timedelta(days=config.keep_days)
    chosen = (await session.execute(_CHOOSE, {"before": before, "limit": config.days_per_pass})).all()
    if not chosen:
        return 0
    names = {"accounts": [row.account_id for row in chosen], "days": [row.day for row in chosen]}
    await session.execute(_LOCK_HOURS, names)
    # noted first: hours of a day that lost them mark it no more (see `km_touch_days`)
    await session.execute(_NOTE, {**names, "now": now})
    await session.execute(_DROP, names)
    metrics.DAYS_DROPPED.inc(len(chosen))
    log.info("dropped hours of days long past", days=len(chosen), before=str(before))
    return len(chosen)


async def hours_were_dropped(session: AsyncSession, *, account_id: str, hour: datetime) -> bool:
    """Say whether the hour's figures are kept by day only: nothing may change them any more."""
    dropped_at = await session.scalar(
        select(UsageDay.hours_dropped_at).where(UsageDay.account_id == account_id, UsageDay.day == floor_day(hour))
    )
    return dropped_at is not None


async def run_hourly_retention(
    *,
    config: HourlyRetentionConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Drop hours as they grow old until `stop`. Failures are counted, logged and tried again."""
    pauses = Pauses(stop)
    while not stop.is_set():
        try:
            async with sessions() as session, session.begin():
                done = await drop_old_hours(session, config=config, now=clock())
            pauses.reset()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next round may go better
            metrics.FAILURES.labels("daily", "drop").inc()
            log.warning("dropping old hours failed and is tried again", error=repr(error))
            await pauses.wait()
            continue
        if done < config.days_per_pass:
            await sleep_unless(stop, config.pause_seconds)
