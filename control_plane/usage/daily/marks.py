"""Marks of days whose hours change; rows of `usage_hourly` mark their days themselves, too (`km_touch_days`)."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_day, from_ms
from control_plane.usage.model import HourKey

# Sorted, so that two workers that touch the same days wait for each other instead of dying.
_TOUCH = text("""
INSERT INTO touched_days (account_id, day, generation, touched_at)
SELECT account_id, day, 1, :now
FROM unnest(CAST(:accounts AS text[]), CAST(:days AS timestamptz[])) AS touched (account_id, day)
ORDER BY account_id, day
ON CONFLICT (account_id, day) DO UPDATE
SET generation = touched_days.generation + 1, touched_at = excluded.touched_at
""")


async def touch_days(session: AsyncSession, *, hours: Collection[HourKey], now: datetime) -> None:
    """Mark the days of hours before their rows are written: all at once, so that nobody waits in a circle."""
    days = sorted({(key.account_id, floor_day(from_ms(key.hour_ms))) for key in hours})
    if days:
        await session.execute(_TOUCH, {**day_arrays(days), "now": now})


def day_arrays(days: Collection[tuple[str, datetime]]) -> dict[str, list[object]]:
    """Return days as two arrays of equal length, `accounts` and `days`, for `unnest`."""
    return {"accounts": [account_id for account_id, _ in days], "days": [day for _, day in days]}
