"""Which billing periods of prepaid subscriptions are to be looked at, and when a new one begins."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.billing.credits import ledger
from control_plane.billing.credits.prepaid import without_period
from control_plane.billing.credits.tables import PrepaidPeriod
from control_plane.foundation.clock import as_utc
from control_plane.foundation.db import is_any_of

HOUR = timedelta(hours=1)
# a seal commits after the moment that it bears; what takes longer is found by the next sweep
SEAL_MARGIN = timedelta(seconds=10)

# Of a period that is over, everything that is known counts against what the next one may use, sealed or not.
_CHANGED = text("""
SELECT period.subscription_id, period.period_start,
    min(hours.hour) FILTER (WHERE hours.sealed_at > period.looked_at - CAST(:commit_margin AS interval))
FROM usage_hours AS hours
JOIN subscriptions AS subscription ON subscription.account_id = hours.account_id
JOIN prepaid_periods AS period ON period.subscription_id = subscription.id AND period.invoice_id IS NULL
    AND hours.hour >= period.period_start AND hours.hour < period.period_end
WHERE hours.sealed_at > :since AND hours.sealed_at > period.looked_at - CAST(:margin AS interval)
GROUP BY period.subscription_id, period.period_start
UNION ALL
SELECT period.subscription_id, period.period_start, min(hours.hour)
FROM prepaid_periods AS period
JOIN subscriptions AS subscription ON subscription.id = period.subscription_id
JOIN usage_hours AS hours ON hours.account_id = subscription.account_id
    AND hours.hour >= period.period_end - interval '1 day' AND hours.hour < period.period_end
WHERE period.invoice_id IS NULL AND period.period_end <= :now AND hours.sealed_at IS NULL
    AND hours.aggregated_at > period.looked_at
GROUP BY period.subscription_id, period.period_start
""")


@dataclass(frozen=True, slots=True)
class ChangedPeriod:
    """A billing period to look at; `first_hour`: the earliest hour that was sealed since, None where none was."""

    subscription_id: str
    start: datetime
    first_hour: datetime | None

    @property
    def key(self) -> tuple[str, datetime]:
        return (self.subscription_id, self.start)


async def begin_periods(session: AsyncSession, *, now: datetime, limit: int = 500) -> list[ChangedPeriod]:
    """Open the billing periods that hold `now`, of up to `limit` prepaid subscriptions that have none; idempotent.

    Gateways are told, since what may be used is reckoned anew. Returns what is to be looked at then: the new
    periods, and those before that no invoice has billed yet.
    """
    begun = await without_period(session, now=now, limit=limit)
    if not begun:
        return []
    await ledger.lock_accounts(session, {one.account_id for one in begun})
    rows = [
        {
            "subscription_id": one.id,
            "period_start": one.period.start,
            "period_end": one.period.end,
            "looked_at": one.period.start,
        }
        for one in begun
    ]
    await session.execute(insert(PrepaidPeriod).on_conflict_do_nothing(), rows)
    await bump_gateway_versions(session, {one.account_id for one in begun}, now)
    before = select(PrepaidPeriod.subscription_id, PrepaidPeriod.period_start, PrepaidPeriod.period_end).where(
        is_any_of(PrepaidPeriod.subscription_id, {one.id for one in begun}),
        PrepaidPeriod.invoice_id.is_(None),
        PrepaidPeriod.period_end <= now,
    )
    return [
        *(ChangedPeriod(one.id, one.period.start, one.period.start) for one in begun),
        *(ChangedPeriod(key, start, end - HOUR) for key, start, end in await session.execute(before)),
    ]


async def changed_periods(
    session: AsyncSession, *, since: datetime, margin: timedelta, now: datetime
) -> list[ChangedPeriod]:
    """Return open billing periods of which hours were sealed after `since`, and not looked at after that.

    A seal commits after the moment that it bears: what was sealed within `margin` before a look is looked at once
    more.
    """
    rows = await session.execute(
        _CHANGED, {"since": since, "margin": margin, "commit_margin": SEAL_MARGIN, "now": now}
    )
    hours: dict[tuple[str, datetime], list[datetime]] = defaultdict(list)
    for subscription_id, period_start, hour in rows:
        hours[subscription_id, as_utc(period_start)] += [] if hour is None else [as_utc(hour)]
    return [ChangedPeriod(*key, min(found, default=None)) for key, found in sorted(hours.items())]
