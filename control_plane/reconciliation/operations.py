"""Asking for reconciliations. Nothing here commits."""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_hour, floor_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.reconciliation.tables import Reconciliation

LONGEST = timedelta(days=400)
USUAL = timedelta(days=35)


async def start_reconciliation(
    session: AsyncSession,
    *,
    account_id: str | None,
    start: datetime | None,
    end: datetime | None,
    with_stripe: bool,
    actor: str,
    now: datetime,
) -> Reconciliation:
    """Queue a reconciliation of [start, end): the last 35 days up to this hour where they are not named.

    Raises:
        ValidationFailedError: the span is empty, longer than 400 days, or not of full hours.
    """
    now = floor_ms(now)
    end = floor_hour(now) if end is None else end
    start = end - USUAL if start is None else start
    for name, moment in (("end", end), ("start", start)):
        if floor_hour(moment) != moment:
            raise ValidationFailedError(name, "must be a full hour (UTC)")
    if not timedelta() < end - start <= LONGEST:
        raise ValidationFailedError("start", f"must lie before the end, by {LONGEST.days} days at most")
    row = Reconciliation(
        id=new_id("rcn", now),
        account_id=account_id,
        span_start=start,
        span_end=end,
        with_stripe=with_stripe,
        created_by=actor,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="reconciliation.started",
        entity_type="reconciliation",
        entity_id=row.id,
        before=None,
        after={"account_id": account_id, "start": start.isoformat(), "end": end.isoformat()},
        now=now,
    )
    return row
