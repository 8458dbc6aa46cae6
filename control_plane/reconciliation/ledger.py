"""Rollups of sealed hours against the ledger that bills are made from."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import as_utc, from_ms, to_ms
from control_plane.foundation.db import is_any_of
from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.extra_units import EXTRA_UNITS
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.ledger import LedgerDifference, ledger_differences
from control_plane.usage.rollups.tables import CALLS_METER

HOUR = timedelta(hours=1)
AT_ONCE = 5_000
# days whose hours were dropped have nothing to compare with; of touched hours the next seal says more
_SEALED = text("""
SELECT hours.account_id, hours.hour, hours.revision, hours.sealed_at,
    EXISTS (SELECT 1 FROM touched_hours AS mark
        WHERE mark.account_id = hours.account_id AND mark.hour = hours.hour) AS touched
FROM usage_hours AS hours
WHERE hours.hour >= :start AND hours.hour < :end AND hours.sealed_at IS NOT NULL
    AND (CAST(:account AS text) IS NULL OR hours.account_id = :account)
    AND (hours.account_id, hours.hour) > (:after_account, :after_hour)
    AND NOT EXISTS (SELECT 1 FROM usage_days AS day
        WHERE day.account_id = hours.account_id AND day.day = date_trunc('day', hours.hour, 'UTC')
            AND day.hours_dropped_at IS NOT NULL)
ORDER BY hours.account_id, hours.hour
LIMIT :limit
""")


async def compare_ledger(session: AsyncSession, span: Span) -> Comparison:
    """Compare what each sealed hour's rows come to, meter by meter, with the sum of the ledger's changes."""
    comparison = Comparison(link=Link.ROLLUPS_LEDGER, checked_what="sealed hours")
    after: tuple[str, datetime] = ("", span.start - HOUR)
    while True:
        rows = (
            await session.execute(
                _SEALED,
                {
                    "start": span.start,
                    "end": span.end,
                    "account": span.account_id,
                    "after_account": after[0],
                    "after_hour": after[1],
                    "limit": AT_ONCE,
                },
            )
        ).all()
        if not rows:
            return comparison
        keys = {HourKey(row.account_id, to_ms(as_utc(row.hour))): row for row in rows}
        sealed = {key: (row.revision, as_utc(row.sealed_at)) for key, row in keys.items()}
        found = await ledger_differences(session, sealed, extra_units=EXTRA_UNITS)
        subscriptions = await _subscriptions(session, {one.phase_id for one in found})
        comparison.checked += len(rows)
        comparison.differences += [_difference(one, subscriptions, touched=keys[one.key].touched) for one in found]
        after = rows[-1].account_id, as_utc(rows[-1].hour)


async def _subscriptions(session: AsyncSession, phase_ids: Collection[str]) -> Mapping[str, str]:
    rows = await session.execute(
        select(SubscriptionPhase.id, SubscriptionPhase.subscription_id).where(
            is_any_of(SubscriptionPhase.id, phase_ids)
        )
    )
    return {row.id: row.subscription_id for row in rows}


def _difference(one: LedgerDifference, subscriptions: Mapping[str, str], *, touched: bool) -> Difference:
    hour = from_ms(one.key.hour_ms)
    is_calls = one.meter == CALLS_METER
    return Difference(
        link=Link.ROLLUPS_LEDGER,
        severity=Severity.WAITING if touched else Severity.WRONG,
        account_id=one.key.account_id,
        subscription_id=subscriptions.get(one.phase_id),
        meter=None if is_calls else one.meter,
        start=hour,
        end=hour + HOUR,
        unit="calls" if is_calls else "units",
        expected=one.units,
        found=one.known_units,
        cause="hour_touched" if touched else "ledger_differs",
        detail="later usage of this hour is being sealed"
        if touched
        else "rows of a sealed hour were changed without the ledger, or the ledger without them",
    )
