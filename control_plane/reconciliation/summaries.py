"""Usage reported to Stripe against what Stripe has added up: its summaries of each customer's meters."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import as_utc
from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span, not_checked
from control_plane.stripe_sync.client import Stripe, StripeConfig, StripeRefused, StripeUnavailable
from control_plane.stripe_sync.usage.comparing import SummaryDifference, compare_window, differing_hours
from control_plane.stripe_sync.usage.summaries import QUIET

WHAT = "customers' meters"
# Stripe is asked once or twice for each; what it adds up of older usage no longer changes
MOST_WINDOWS = 5_000
_WINDOWS = text("""
SELECT account_id, subscription_id, customer_id, event_name, meter, max(delivered_at) AS delivered_at
FROM stripe_usage_rows
WHERE customer_id IS NOT NULL AND event_name IS NOT NULL AND stripe_at >= :start AND stripe_at < :end
    AND (CAST(:account AS text) IS NULL OR account_id = :account)
GROUP BY account_id, subscription_id, customer_id, event_name, meter
ORDER BY account_id, subscription_id, meter
LIMIT :limit
""")


class CompareSummaries:
    """A comparison that asks Stripe, over a connection of its own; without `config` Stripe is off."""

    def __init__(self, config: StripeConfig | None, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._config = config
        self._sessions = sessions

    async def __call__(self, session: AsyncSession, span: Span) -> Comparison:
        if self._config is None:
            return not_checked(Link.REPORTS_STRIPE, "Stripe is off.", what=WHAT)
        if not span.ask_stripe:
            return not_checked(Link.REPORTS_STRIPE, "Stripe was not asked.", what=WHAT)
        asked = {"start": span.start, "end": span.end, "account": span.account_id, "limit": MOST_WINDOWS + 1}
        windows = (await session.execute(_WINDOWS, asked)).all()
        if not windows:
            return not_checked(Link.REPORTS_STRIPE, "No usage was reported to Stripe.", what=WHAT)
        now = as_utc((await session.execute(text("SELECT now()"))).scalar_one())
        comparison = Comparison(link=Link.REPORTS_STRIPE, checked_what=WHAT)
        if len(windows) > MOST_WINDOWS:
            comparison.note = f"The first {MOST_WINDOWS:,} were compared: name accounts for the others."
        async with Stripe.open(self._config) as stripe:
            for window in windows[:MOST_WINDOWS]:
                try:
                    found = await self._compare(stripe, window, span)
                except (StripeRefused, StripeUnavailable) as error:
                    comparison.note = f"Stripe could not be asked for all: {error}"
                    comparison.is_checked = False
                    return comparison
                comparison.checked += 1
                comparison.differences += [self._difference(one, window, now=now) for one in found]
        return comparison

    async def _compare(self, stripe: Stripe, window: Row[Any], span: Span) -> list[SummaryDifference]:
        difference = await compare_window(
            self._sessions,
            stripe,
            customer_id=window.customer_id,
            event_name=window.event_name,
            start=span.start,
            end=span.end,
        )
        if difference is None:
            return []
        return await differing_hours(self._sessions, stripe, difference) or [difference]

    def _difference(self, one: SummaryDifference, window: Row[Any], *, now: datetime) -> Difference:
        fresh = window.delivered_at is not None and now - as_utc(window.delivered_at) < QUIET
        if fresh:
            cause, detail = "being_added_up", "Stripe adds up what it has taken within minutes"
        elif one.units > 0:
            cause, detail = "more_at_stripe", "Stripe counts usage that we did not report, or counts some twice"
        else:
            cause, detail = "less_at_stripe", "Stripe has taken usage that it does not count"
        if one.unknown_units:
            detail += f"; {one.unknown_units:,} units were sent and nobody knows whether they arrived"
        return Difference(
            link=Link.REPORTS_STRIPE,
            severity=Severity.WAITING if fresh else Severity.WRONG,
            account_id=window.account_id,
            subscription_id=window.subscription_id,
            meter=window.meter,
            start=one.start,
            end=max(one.end, one.start + timedelta(minutes=1)),
            unit="units",
            expected=one.delivered_units,
            found=one.stripe_units,
            cause=cause,
            detail=detail,
        )
