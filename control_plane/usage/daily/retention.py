"""Hourly figures are dropped when their day is long past: the daily ones stay.

Only days that were rolled up, are sealed whole and have no mark lose their hours. The setting is never shorter
than raw events are kept, so no hour that could still be recomputed is dropped.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_day, to_ms, utc_now
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.daily.marks import day_arrays
from control_plane.usage.daily.tables import UsageDay
from control_plane.usage.hours import hour_arrays
from control_plane.usage.model import HourKey

log = structlog.get_logger(__name__)

_MAY_LOSE_HOURS = """
    NOT EXISTS (
        SELECT 1 FROM touched_days AS mark WHERE mark.account_id = found.account_id AND mark.day = found.day)
    AND NOT EXISTS (
        SELECT 1 FROM touched_hours AS mark
        WHERE mark.account_id = found.account_id AND mark.hour >= found.day
            AND mark.hour < found.day + interval '24 hours')
    AND NOT EXISTS (
        SELECT 1 FROM usage_hours AS hours
        WHERE hours.account_id = found.account_id AND hours.hour >= found.day
            AND hours.hour < found.day + interval '24 hours' AND hours.sealed_at IS NULL)
"""
_CHOOSE = text(f"""
SELECT account_id, day FROM usage_days AS found
WHERE hours_dropped_at IS NULL AND rolled_up_at IS NOT NULL AND day < :before AND {_MAY_LOSE_HOURS}
ORDER BY day, account_id LIMIT :limit
FOR UPDATE OF found SKIP LOCKED
""")  # noqa: S608 - constants, no input
# an hour that is locked is being changed at this moment: its day keeps its hours for now
_LOCK_HOURS = text("""
SELECT 1 FROM usage_hours AS hours
JOIN unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS chosen (account_id, day)
    ON hours.account_id = chosen.account_id AND hour >= day AND hour < day + interval '24 hours'
ORDER BY hours.account_id, hour
FOR UPDATE OF hours NOWAIT
""")
# Asked again under the locks: an hour may have been opened or touched since the days were chosen. It would be
# sealed with no rows, and all that was billed of it taken back.
_STILL_MAY = text(f"""
SELECT found.account_id, found.day
FROM unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS found (account_id, day)
WHERE {_MAY_LOSE_HOURS}
""")  # noqa: S608 - constants, no input
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
_DROPPED = text("""
SELECT asked.account_id, asked.hour
FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])) AS asked (account_id, hour)
JOIN usage_days AS known
    ON known.account_id = asked.account_id AND known.day = date_trunc('day', asked.hour, 'UTC')
WHERE known.hours_dropped_at IS NOT NULL
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
    if chosen:
        await session.execute(_LOCK_HOURS, _names(chosen))
        chosen = (await session.execute(_STILL_MAY, _names(chosen))).all()
    if not chosen:
        return 0
    names = _names(chosen)
    # noted first: hours of a day that lost them mark it no more (see `km_touch_days`)
    await session.execute(_NOTE, {**names, "now": now})
    await session.execute(_DROP, names)
    metrics.DAYS_DROPPED.inc(len(chosen))
    log.info("dropped hours of days long past", days=len(chosen), before=str(before))
    return len(chosen)


async def hours_were_dropped(session: AsyncSession, *, account_id: str, hour: datetime) -> bool:
    """Say whether the hour's figures are kept by day only: nothing may change them any more.

    Waits for who is dropping them now; where they were not, they stay until the transaction ends.
    """
    dropped_at = await session.scalar(
        select(UsageDay.hours_dropped_at)
        .where(UsageDay.account_id == account_id, UsageDay.day == floor_day(hour))
        .with_for_update(read=True)
    )
    return dropped_at is not None


async def of_dropped_days(session: AsyncSession, hours: Collection[HourKey]) -> set[HourKey]:
    """Return those of these hours, which the caller has locked, whose figures are kept by day only."""
    found = await session.execute(_DROPPED, hour_arrays(hours))
    return {HourKey(account_id, to_ms(hour)) for account_id, hour in found}


def _names(days: Sequence[Row[Any]]) -> dict[str, list[object]]:
    return day_arrays([(found.account_id, found.day) for found in days])


async def run_hourly_retention(
    *,
    config: HourlyRetentionConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Drop hours as they grow old until `stop`. Failures are counted, logged and tried again."""

    async def one_round() -> float:
        async with sessions() as session, session.begin():
            done = await drop_old_hours(session, config=config, now=clock())
        return config.pause_seconds if done < config.days_per_pass else 0

    await repeat("hourly-retention", one_round, stop=stop, failures=metrics.FAILURES.labels("daily", "drop"))
