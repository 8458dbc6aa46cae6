"""What is due for billed periods against what our own invoices have charged for them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.billed import billed_charges
from control_plane.billing.invoices.difference import difference
from control_plane.billing.invoices.due import due_lines
from control_plane.billing.invoices.model import ChargeLine
from control_plane.billing.terms import read_terms
from control_plane.foundation.clock import as_utc
from control_plane.foundation.period import BillingPeriod
from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods
from control_plane.usage.unsettled import UsageSpan, unsettled_subscriptions

AT_ONCE = 500
_BILLED = text("""
SELECT period.subscription_id, period.period_start, period.period_end, period.changed_at, period.usage_as_of,
    subscriptions.account_id, accounts.currency
FROM billed_periods AS period
JOIN subscriptions ON subscriptions.id = period.subscription_id
JOIN accounts ON accounts.id = subscriptions.account_id
WHERE period.period_end > :start AND period.period_start < :end
    AND (CAST(:account AS text) IS NULL OR subscriptions.account_id = :account)
    AND (period.subscription_id, period.period_start) > (:after_id, :after_start)
ORDER BY period.subscription_id, period.period_start
LIMIT :limit
""")
_SEALED_SINCE = text("""
SELECT EXISTS (
    SELECT 1 FROM usage_ledger
    WHERE account_id = :account AND hour >= :start AND hour < :end AND sealed_at > :since)
""")
# billing looks for late usage every few seconds
SEEN_WITHIN = timedelta(hours=1)


async def compare_own_invoices(session: AsyncSession, span: Span) -> Comparison:
    """Compute what is due for every billed period of the span anew, and compare it with the lines of invoices."""
    comparison = Comparison(link=Link.LEDGER_INVOICES, checked_what="billed periods")
    after: tuple[str, datetime] = ("", span.start)
    while True:
        rows = (
            await session.execute(
                _BILLED,
                {
                    "start": span.start,
                    "end": span.end,
                    "account": span.account_id,
                    "after_id": after[0],
                    "after_start": after[1],
                    "limit": AT_ONCE,
                },
            )
        ).all()
        if not rows:
            return comparison
        comparison.checked += len(rows)
        comparison.differences += await _differences(session, rows, now=span.now)
        after = rows[-1].subscription_id, as_utc(rows[-1].period_start)


async def _differences(session: AsyncSession, rows: Sequence[Row[Any]], *, now: datetime) -> list[Difference]:
    periods = [BillingPeriod(as_utc(row.period_start), as_utc(row.period_end)) for row in rows]
    found = await timelines(session, {row.subscription_id for row in rows})
    terms = await read_terms(
        session,
        {(version, row.currency) for row in rows for version in found[row.subscription_id].version_ids},
    )
    units = await units_of_periods(
        session,
        [
            PhasePeriod(
                phase.id,
                row.account_id,
                period.start,
                period.end,
                any(terms[version, row.currency].declares for version in found[row.subscription_id].version_ids),
            )
            for row, period in zip(rows, periods, strict=True)
            for phase in found[row.subscription_id].phases_within(period)
            if phase.costs
        ],
    )
    billed = await billed_charges(
        session, [(row.subscription_id, period.start) for row, period in zip(rows, periods, strict=True)]
    )
    wrong: list[tuple[Row[Any], BillingPeriod, list[tuple[ChargeLine, int, int]]]] = []
    for row, period in zip(rows, periods, strict=True):
        timeline = found[row.subscription_id]
        due = due_lines(
            timeline,
            period,
            terms={version: terms[version, row.currency] for version in timeline.version_ids},
            units={
                phase.id: units[phase.id, period.start]
                for phase in timeline.phases
                if (phase.id, period.start) in units
            },
        )
        before = billed.get((row.subscription_id, period.start), {})
        owed = {line.charge_key: line.amount_minor for line in due}
        lines = [
            (
                line,
                owed.get(line.charge_key, 0),
                before[line.charge_key].amount_minor if line.charge_key in before else 0,
            )
            for line in difference(due, before)
            if line.amount_minor
        ]
        if lines:
            wrong.append((row, period, lines))
    on_their_way = await _on_their_way(session, [row for row, _, _ in wrong if row.changed_at is None], now=now)
    return [
        _difference(row, period, line, owed=owed, charged=charged, is_on_its_way=_key(row) in on_their_way)
        for row, period, lines in wrong
        for line, owed, charged in lines
    ]


def _key(row: Row[Any]) -> tuple[str, datetime]:
    return row.subscription_id, as_utc(row.period_start)


async def _on_their_way(
    session: AsyncSession, rows: Sequence[Row[Any]], *, now: datetime
) -> set[tuple[str, datetime]]:
    """Return the periods whose late usage is being sealed, or was sealed just now: billing has not seen it yet."""
    found = set()
    for row in rows:
        span = UsageSpan(
            subscription_id=row.subscription_id,
            account_id=row.account_id,
            start=as_utc(row.period_start),
            end=as_utc(row.period_end),
        )
        asked = {
            "account": row.account_id,
            "start": row.period_start,
            "end": row.period_end,
            "since": max(as_utc(row.usage_as_of), now - SEEN_WITHIN),
        }
        lately = bool((await session.execute(_SEALED_SINCE, asked)).scalar_one())
        if lately or await unsettled_subscriptions(session, [span]):
            found.add(_key(row))
    return found


def _difference(
    row: Row[Any], period: BillingPeriod, line: ChargeLine, *, owed: int, charged: int, is_on_its_way: bool
) -> Difference:
    cause, more = "billed_differs", ""
    if row.changed_at:
        cause, more = "on_next_invoice", "; the next invoice bills the difference"
    elif is_on_its_way:
        cause, more = "late_usage", "; usage of the period came late, and billing has not seen it yet"
    return Difference(
        link=Link.LEDGER_INVOICES,
        severity=Severity.WAITING if row.changed_at or is_on_its_way else Severity.WRONG,
        account_id=row.account_id,
        subscription_id=row.subscription_id,
        meter=line.meter,
        start=period.start,
        end=period.end,
        unit=row.currency,
        expected=owed,
        found=charged,
        cause=cause,
        detail=f"{line.description}{more}",
    )
