"""Keeping what was sealed when it changes: the seal and its rows are copied before they are replaced."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.hours import hour_arrays
from control_plane.usage.model import HourKey
from control_plane.usage.rollups import metrics
from control_plane.usage.tables import HourlyFigures

_COLUMNS = ", ".join(name for name in HourlyFigures.__annotations__ if name not in {"account_id", "hour"})
_WANTED = """
SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]))
"""
_COPY_SEALS = text(f"""
INSERT INTO usage_hours_superseded (account_id, hour, revision, sealed_at, superseded_at)
SELECT account_id, hour, revision, sealed_at, greatest(sealed_at, :now) FROM usage_hours
WHERE sealed_at IS NOT NULL AND (account_id, hour) IN ({_WANTED})
RETURNING 1
""")  # noqa: S608 - constants, no input
_COPY_ROWS = text(f"""
INSERT INTO usage_hourly_superseded (account_id, hour, revision, {_COLUMNS})
SELECT account_id, hour, sealed.revision, {_COLUMNS}
FROM usage_hourly JOIN (
    SELECT account_id, hour, revision FROM usage_hours
    WHERE sealed_at IS NOT NULL AND (account_id, hour) IN ({_WANTED})
) AS sealed USING (account_id, hour)
""")  # noqa: S608 - constants, no input


async def keep_sealed(session: AsyncSession, hours: Collection[HourKey], *, now: datetime) -> None:
    """Copy what is sealed of these hours, nothing of those that are open. The caller holds their locks."""
    arguments = hour_arrays(hours)
    copied = (await session.execute(_COPY_SEALS, {**arguments, "now": now})).all()
    if copied:
        await session.execute(_COPY_ROWS, arguments)
        metrics.SEALS_OPENED.inc(len(copied))
