"""Usage reported to Stripe against what Stripe has added up: its summaries of each customer's meters."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import as_utc, utc_now
from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span, not_checked
from control_plane.stripe_sync.client import Stripe, StripeConfig, StripeRefused, StripeUnavailable
from control_plane.stripe_sync.usage.comparing import SummaryDifference, compare_window, differing_hours
from control_plane.stripe_sync.usage.summaries import QUIET

WHAT = "customers' meters"
# Stripe is asked once or twice for each; what it adds up of older usage no longer changes
MOST_WINDOWS = 5_000
# another order each day: where there are too many, all are compared some time
_WINDOWS = text("""
SELECT account_id, subscription_id, customer_id, event_name, meter
FROM stripe_usage_rows
WHERE customer_id IS NOT NULL AND event_name IS NOT NULL AND stripe_at >= :start AND stripe_at < :end
    AND (CAST(:account AS text) IS NULL OR account_id = :account)
GROUP BY account_id, subscription_id, customer_id, event_name, meter
ORDER BY md5(account_id || CAST(:day AS text)), account_id, subscription_id, meter
LIMIT :limit
""")
_SENT = text("""
SELECT max(sent_at) AS sent_at,
    CAST(coalesce(sum(delta_units) FILTER (WHERE state = 'sent'), 0) AS bigint) AS unknown
FROM stripe_usage_rows
WHERE customer_id = :customer AND event_name = :event_name AND stripe_at >= :start AND stripe_at < :end
""")


@dataclass(frozen=True, slots=True)
class _Hour:
    """An hour that Stripe counts otherwise. `is_fresh`: something in it was sent lately."""

    found: SummaryDifference
    is_fresh: bool
    unknown_units: int


class CompareSummaries:
    """A comparison that asks Stripe, over a connection of its own; without `config` Stripe is off.

    It goes on for minutes, so rows are read as they are at each, not as they were at the beginning.
    """

    def __init__(
        self,
        config: StripeConfig | None,
        sessions: async_sessionmaker[AsyncSession],
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._clock = clock

    async def __call__(self, session: AsyncSession, span: Span) -> Comparison:
        if self._config is None:
            return not_checked(Link.REPORTS_STRIPE, "Stripe is off.", what=WHAT)
        if not span.ask_stripe:
            return not_checked(Link.REPORTS_STRIPE, "Stripe was not asked.", what=WHAT)
        windows = (
            await session.execute(
                _WINDOWS,
                {
                    "start": span.start,
                    "end": span.end,
                    "account": span.account_id,
                    "day": f"{span.now:%Y-%m-%d}",
                    "limit": MOST_WINDOWS + 1,
                },
            )
        ).all()
        if not windows:
            return not_checked(Link.REPORTS_STRIPE, "No usage was reported to Stripe.", what=WHAT)
        comparison = Comparison(link=Link.REPORTS_STRIPE, checked_what=WHAT)
        if len(windows) > MOST_WINDOWS:
            comparison.note = f"{MOST_WINDOWS:,} were compared, others another day: name accounts for them."
        async with Stripe.open(self._config) as stripe:
            for window in windows[:MOST_WINDOWS]:
                try:
                    hours = await self._compare(stripe, window, span)
                except StripeUnavailable as away:
                    # of the rest nobody knows, and that must not look like agreement
                    comparison.differences.append(_not_told(window, span, "stripe_not_asked", away.message))
                    comparison.note = "Stripe could not be asked for all."
                    break
                except (StripeRefused, ValueError) as error:
                    comparison.differences.append(_not_told(window, span, "summary_unreadable", str(error)))
                    continue
                comparison.checked += 1
                comparison.differences += [_difference(one, window) for one in hours]
        return comparison

    async def _compare(self, stripe: Stripe, window: Row[Any], span: Span) -> list[_Hour]:
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
        return [await self._sent(one) for one in await differing_hours(self._sessions, stripe, difference)]

    async def _sent(self, found: SummaryDifference) -> _Hour:
        asked = {
            "customer": found.customer_id,
            "event_name": found.event_name,
            "start": found.start,
            "end": found.end,
        }
        async with self._sessions() as session:
            row = (await session.execute(_SENT, asked)).one()
        is_fresh = row.sent_at is not None and self._clock() - as_utc(row.sent_at) < QUIET
        return _Hour(found, is_fresh, row.unknown)


def _difference(hour: _Hour, window: Row[Any]) -> Difference:
    one = hour.found
    if hour.is_fresh:
        cause, detail = "being_added_up", "Stripe adds up what it has taken within minutes"
    elif hour.unknown_units:
        cause = "unknown_outcome"
        detail = f"{hour.unknown_units:,} units were sent and nobody knows whether they arrived"
    elif one.units > 0:
        cause, detail = "more_at_stripe", "Stripe counts usage that we did not report, or counts some twice"
    else:
        cause, detail = "less_at_stripe", "Stripe has taken usage that it does not count"
    return Difference(
        link=Link.REPORTS_STRIPE,
        severity=Severity.WAITING if hour.is_fresh or hour.unknown_units else Severity.WRONG,
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


def _not_told(window: Row[Any], span: Span, cause: str, why: str) -> Difference:
    return Difference(
        link=Link.REPORTS_STRIPE,
        severity=Severity.WRONG,
        account_id=window.account_id,
        subscription_id=window.subscription_id,
        meter=window.meter,
        start=span.start,
        end=span.end,
        unit="units",
        expected=0,
        found=0,
        cause=cause,
        detail=f"what Stripe has added up is not known: {why}",
    )
