"""Which billing periods of unique meters have to be counted again."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import period_containing
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase

# Sorted: whoever touches the same periods waits for the other instead of dying.
_TOUCH = text("""
INSERT INTO meter_period_states (subscription_id, period_start, period_end, account_id, generation, due_at)
SELECT *, 1, CAST(:now AS timestamptz) FROM unnest(
    CAST(:subscriptions AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]),
    CAST(:accounts AS text[])) AS touched (subscription_id, period_start, period_end, account_id)
ORDER BY subscription_id, period_start
ON CONFLICT (subscription_id, period_start) DO UPDATE SET generation = meter_period_states.generation + 1,
    -- a running period rests for a while after it was counted; one that is over does not
    due_at = CASE WHEN meter_period_states.period_end <= :now
        THEN least(meter_period_states.due_at, :now) ELSE meter_period_states.due_at END
""")


async def touch_periods(session: AsyncSession, hours: Collection[tuple[str, int]], *, now: datetime) -> None:
    """Have the billing periods counted again that these hours, (phase, ms), are in.

    Periods of a year are left alone: the events of its beginning may be gone before it ends (see `catalog.rules`).
    """
    if not hours:
        return
    statement = (
        select(
            SubscriptionPhase.id,
            Subscription.id.label("subscription_id"),
            Subscription.account_id,
            Subscription.anchor_at,
            Subscription.interval,
            Subscription.time_zone,
        )
        .join(Subscription, Subscription.id == SubscriptionPhase.subscription_id)
        .where(
            is_any_of(SubscriptionPhase.id, {phase_id for phase_id, _ in hours}), Subscription.interval == "month"
        )
    )
    of_phases = {row.id: row for row in await session.execute(statement)}
    touched: set[tuple[str, datetime, datetime, str]] = set()
    for phase_id, hour_ms in hours:
        if phase_id in of_phases:
            row = of_phases[phase_id]
            period = period_containing(from_ms(hour_ms), row.anchor_at, row.interval, row.time_zone)
            touched.add((row.subscription_id, period.start, period.end, row.account_id))
    if touched:
        subscriptions, starts, ends, accounts = zip(*sorted(touched), strict=True)
        await session.execute(
            _TOUCH,
            {
                "subscriptions": list(subscriptions),
                "starts": list(starts),
                "ends": list(ends),
                "accounts": list(accounts),
                "now": now,
            },
        )
