"""The ledger against usage reported to Stripe, row by row of the ledger."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import as_utc
from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span, not_checked

WHAT = "rows of the ledger"
# sealed this long ago, a row should have reached Stripe
PATIENCE = timedelta(hours=6)
# Which rows are Stripe's concern is asked of the plan here, not of what was noted when they were written.
_ROWS = """
WITH concerned AS (
    SELECT ledger.account_id, ledger.hour, ledger.meter, ledger.delta_units, ledger.sealed_at,
        phase.subscription_id, report.state, report.error
    FROM usage_ledger AS ledger
    LEFT JOIN stripe_usage_rows AS report
        ON (report.account_id, report.hour, report.revision, report.phase_id, report.meter)
            = (ledger.account_id, ledger.hour, ledger.revision, ledger.phase_id, ledger.meter)
    JOIN subscription_phases AS phase ON phase.id = ledger.phase_id
    JOIN subscriptions AS subscription ON subscription.id = phase.subscription_id
    WHERE subscription.billed_by = 'stripe' AND phase.kind = 'paid'
        AND ledger.hour >= :start AND ledger.hour < :end
        AND (CAST(:account AS text) IS NULL OR ledger.account_id = :account)
        AND (report.state IS NOT NULL OR EXISTS (
            SELECT 1 FROM prices AS price
            WHERE price.plan_version_id = phase.plan_version_id AND price.meter = ledger.meter
        ) OR EXISTS (
            SELECT 1 FROM subscription_add_ons AS add_on JOIN prices AS price USING (plan_version_id)
            WHERE add_on.subscription_id = subscription.id AND price.meter = ledger.meter))
)
"""
_SUMS = text(f"""{_ROWS}
SELECT count(*) AS rows, CAST(coalesce(sum(delta_units), 0) AS bigint) AS units,
    CAST(coalesce(sum(delta_units) FILTER (WHERE state IN ('delivered', 'cancelled')), 0) AS bigint) AS reported,
    CAST(coalesce(sum(delta_units) FILTER (WHERE state IN ('ours', 'too_old')), 0) AS bigint) AS by_us
FROM concerned
""")  # noqa: S608 - constants, no input
_OPEN = text(f"""{_ROWS}
SELECT account_id, subscription_id, meter, coalesce(state, '') AS state, coalesce(max(error), '') AS error,
    min(hour) AS first_hour, max(hour) AS last_hour, min(sealed_at) AS sealed_at,
    CAST(sum(delta_units) AS bigint) AS units, count(*) AS rows
FROM concerned
WHERE state IS NULL OR state IN ('waiting', 'sent', 'refused')
GROUP BY account_id, subscription_id, meter, coalesce(state, '')
ORDER BY account_id, subscription_id, meter
""")  # noqa: S608 - constants, no input
_WORDS = {
    "": ("not_noted", "sealed usage that was never noted for Stripe"),
    "waiting": ("not_sent", "usage that waits to be sent"),
    "sent": ("unknown_outcome", "Stripe was asked and did not answer: its summaries will tell"),
    "refused": ("refused", "Stripe would not count it"),
}


async def compare_reports(session: AsyncSession, span: Span) -> Comparison:
    """Compare units of the ledger that Stripe is to rate with units that Stripe has taken."""
    asked = {"start": span.start, "end": span.end, "account": span.account_id}
    sums = (await session.execute(_SUMS, asked)).one()
    if not sums.rows:
        return not_checked(Link.LEDGER_REPORTS, "No subscription that Stripe bills had usage.", what=WHAT)
    return Comparison(
        link=Link.LEDGER_REPORTS,
        checked=sums.rows,
        checked_what=WHAT,
        expected=sums.units - sums.by_us,
        found=sums.reported,
        differences=[_difference(row, span.now) for row in await session.execute(_OPEN, asked)],
        note=f"{sums.by_us:,} more units are billed by our own items on Stripe's invoices." if sums.by_us else "",
    )


def _difference(row: Row[Any], now: datetime) -> Difference:
    cause, words = _WORDS[row.state]
    fresh = row.state in {"waiting", "sent"} and now - as_utc(row.sealed_at) < PATIENCE
    return Difference(
        link=Link.LEDGER_REPORTS,
        severity=Severity.WAITING if fresh else Severity.WRONG,
        account_id=row.account_id,
        subscription_id=row.subscription_id,
        meter=row.meter,
        start=as_utc(row.first_hour),
        end=as_utc(row.last_hour) + timedelta(hours=1),
        unit="units",
        expected=row.units,
        found=0,
        cause=cause,
        detail=f"{words}, {row.rows:,} {'row' if row.rows == 1 else 'rows'}"
        + (f": {row.error}" if row.error else ""),
    )
