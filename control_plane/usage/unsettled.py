"""Whose figures of a span may still change by what is on its way: for many subscriptions at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSpan:
    """The usage of one subscription in [start, end)."""

    subscription_id: str
    account_id: str
    start: datetime
    end: datetime


# Open hours are few but for those of the moment, and lie in an index of their own: read first, then matched.
_OPEN = text("""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:subscriptions AS text[]), CAST(:accounts AS text[]), CAST(:starts AS timestamptz[]),
        CAST(:ends AS timestamptz[])) AS asked (subscription_id, account_id, span_start, span_end)
), open AS MATERIALIZED (
    SELECT account_id, hour FROM usage_hours WHERE sealed_at IS NULL AND hour < :last_end
    UNION ALL SELECT account_id, hour FROM touched_hours WHERE hour < :last_end
)
SELECT DISTINCT subscription_id FROM asked JOIN open USING (account_id)
WHERE open.hour >= date_trunc('hour', span_start, 'UTC') AND open.hour < span_end
UNION
SELECT asked.subscription_id FROM asked JOIN meter_period_states AS period USING (subscription_id)
WHERE period.counted_generation < period.generation
    AND period.period_start < span_end AND period.period_end > span_start
""")
_SHIPPED = text("SELECT min(shipped_up_to_ms) FROM shippers WHERE retired_at IS NULL")


async def unsettled_subscriptions(session: AsyncSession, spans: Sequence[UsageSpan]) -> set[str]:
    """Return the subscriptions of spans that are not final yet.

    That is: the account has an hour in it with usage that is not sealed, or was touched since; a unique meter of
    the period is not counted; or a live shipper has not shipped past the span's end, so nobody knows.
    """
    if not spans:
        return set()
    rows = await session.execute(
        _OPEN,
        {
            "subscriptions": [span.subscription_id for span in spans],
            "accounts": [span.account_id for span in spans],
            "starts": [span.start for span in spans],
            "ends": [span.end for span in spans],
            "last_end": max(span.end for span in spans),
        },
    )
    found = set(rows.scalars())
    shipped_up_to_ms = (await session.execute(_SHIPPED)).scalar()
    if shipped_up_to_ms is not None:
        shipped = from_ms(shipped_up_to_ms)
        found.update(span.subscription_id for span in spans if span.end > shipped)
    return found
