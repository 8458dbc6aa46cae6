"""Claiming the subscriptions that are due for a look, and reading what a look needs, for all of them at once."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.steps import ClosingRules, StepKind, next_step
from control_plane.billing.invoices.work import Draft, Work
from control_plane.foundation.clock import as_utc
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.unsettled import UsageSpan, unsettled_subscriptions

OWN = "own"

_CLAIM = text("""
SELECT subscription_id, usage_billed_until FROM subscription_billing
WHERE look_at <= :now
ORDER BY look_at, subscription_id
LIMIT :limit
FOR UPDATE SKIP LOCKED
""")
_CLAIM_ONE = text("""
SELECT subscription_id, usage_billed_until FROM subscription_billing
WHERE look_at <= :now AND subscription_id = :only
FOR UPDATE SKIP LOCKED
""")
# Locked before anything of theirs, in the order in which everybody locks them: so whoever changes a subscription,
# pays, voids or credits an invoice, uses credits or a balance, waits for this round or is waited for, never both.
_LOCK_ACCOUNTS = text("""
SELECT id, currency FROM accounts
WHERE id IN (SELECT account_id FROM subscriptions WHERE id = ANY (CAST(:ids AS text[])))
ORDER BY id
FOR NO KEY UPDATE
""")
# locked: what is found to have changed while this round runs is noted after it, and not lost
_CHANGED = text("""
SELECT subscription_id, period_start, period_end, changed_at FROM billed_periods
WHERE changed_at IS NOT NULL AND subscription_id = ANY (CAST(:ids AS text[]))
ORDER BY subscription_id, period_start
FOR UPDATE
""")
_DRAFTS = text("""
SELECT id, subscription_id, draft_digest FROM invoices
WHERE status = 'draft' AND reason <> 'manual' AND subscription_id = ANY (CAST(:ids AS text[]))
""")
_STOP = text("UPDATE subscription_billing SET look_at = NULL WHERE subscription_id = ANY (CAST(:ids AS text[]))")


async def claim_work(
    session: AsyncSession, *, rules: ClosingRules, now: datetime, limit: int, only: str | None = None
) -> list[Work]:
    """Return up to `limit` subscriptions that are due for a look, or `only` one, each with what is to be done.

    They and their accounts are locked until the transaction ends; those that another worker holds are passed over,
    their accounts are waited for. What Stripe bills is left alone from here on.
    """
    claimed = {
        row.subscription_id: as_utc(row.usage_billed_until)
        for row in await (
            session.execute(_CLAIM, {"now": now, "limit": limit})
            if only is None
            else session.execute(_CLAIM_ONE, {"now": now, "only": only})
        )
    }
    if not claimed:
        return []
    rows = await session.execute(_LOCK_ACCOUNTS, {"ids": sorted(claimed)})
    currencies: dict[str, str] = {row.id: row.currency for row in rows}
    found = await timelines(session, claimed)
    ours = {key: timeline for key, timeline in found.items() if timeline.billed_by == OWN}
    if len(ours) < len(claimed):
        await session.execute(_STOP, {"ids": sorted(claimed.keys() - ours.keys())})
    changed = await _changed_periods(session, ours)
    drafts = await _drafts(session, ours)
    works = []
    for subscription_id, timeline in sorted(ours.items()):
        periods, since = changed.get(subscription_id, ((), None))
        billed_until = claimed[subscription_id]
        step = next_step(timeline, billed_until=billed_until, late_since=since, rules=rules, now=now)
        works.append(
            Work(
                timeline=timeline,
                currency=currencies[timeline.account_id],
                billed_until=billed_until,
                step=step,
                changed=periods if step.kind in {StepKind.DRAFT, StepKind.CLOSE} else (),
                draft=drafts.get(subscription_id),
            )
        )
    await _wait_for_usage(session, works, rules=rules, now=now)
    return works


async def _changed_periods(
    session: AsyncSession, subscription_ids: Collection[str]
) -> dict[str, tuple[tuple[BillingPeriod, ...], datetime]]:
    """Return billed periods that changed, and since when that is known, by subscription."""
    found: dict[str, list[tuple[BillingPeriod, datetime]]] = defaultdict(list)
    for row in await session.execute(_CHANGED, {"ids": sorted(subscription_ids)}):
        period = BillingPeriod(as_utc(row.period_start), as_utc(row.period_end))
        found[row.subscription_id].append((period, as_utc(row.changed_at)))
    return {
        subscription_id: (tuple(period for period, _ in periods), min(since for _, since in periods))
        for subscription_id, periods in found.items()
    }


async def _drafts(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, Draft]:
    rows = await session.execute(_DRAFTS, {"ids": sorted(subscription_ids)})
    return {row.subscription_id: Draft(row.id, row.draft_digest) for row in rows}


async def _wait_for_usage(
    session: AsyncSession, works: Sequence[Work], *, rules: ClosingRules, now: datetime
) -> None:
    """Mark those whose usage is not final yet; they stay drafts, unless they have waited long enough."""
    waiting = [
        work for work in works if work.step.kind is StepKind.CLOSE and now < work.step.closes_at + rules.max_wait
    ]
    spans = [
        UsageSpan(
            subscription_id=work.subscription_id,
            account_id=work.account_id,
            start=period.start,
            end=min(period.end, work.timeline.ends_at or period.end),
        )
        for work in waiting
        for period in work.usage_periods
    ]
    unsettled = await unsettled_subscriptions(session, spans)
    for work in waiting:
        work.waits_for_usage = work.subscription_id in unsettled
