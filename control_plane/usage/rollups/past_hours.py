"""Touched hours whose events may have expired: their figures stand, whatever still comes for them."""

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage import metrics
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey
from control_plane.usage.tables import UsageHour

log = structlog.get_logger(__name__)


async def leave_standing(
    session: AsyncSession, hours: Sequence[HourKey], *, revisions: Mapping[HourKey, int]
) -> None:
    """Count and name hours that are not recomputed. The caller holds their locks and clears their marks.

    The row of an hour that never had figures (revision 0) goes again: nobody would ever seal it.
    """
    if not hours:
        return
    metrics.HOURS_PAST.inc(len(hours))
    first = min(hours, key=lambda key: key.hour_ms)
    log.error(
        "hours were touched whose events may have expired; their figures stand",
        hours=len(hours),
        account_id=first.account_id,
        hour_ms=first.hour_ms,
    )
    if empty := [key for key in hours if revisions[key] == 0]:
        never_counted = is_one_of(UsageHour, empty) & UsageHour.aggregated_at.is_(None)
        await session.execute(delete(UsageHour).where(never_counted).execution_options(synchronize_session=False))
