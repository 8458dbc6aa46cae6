"""How far subscriptions are billed, and when billing looks at each next."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.steps import ClosingRules, StepKind, next_look
from control_plane.billing.invoices.work import Work
from control_plane.foundation.json_rows import as_json
from control_plane.foundation.outbox import Topic, claim, finish

# A seal's moment is read before its transaction begins and commits after: what is sealed about when a period is
# billed counts as not seen, so that it is looked at once more, rather than never.
SEAL_MARGIN = timedelta(minutes=10)
NEWS_AT_ONCE = 1_000

_SET = text("""
UPDATE subscription_billing AS billing SET look_at = made.look_at, usage_billed_until = made.billed_until
FROM json_to_recordset(CAST(:rows AS json)) AS made (id text, look_at timestamptz, billed_until timestamptz)
WHERE billing.subscription_id = made.id
""")
_PERIODS = text("""
INSERT INTO billed_periods (subscription_id, period_start, period_end, usage_as_of, invoice_id, closed_at)
SELECT subscription_id, period_start, period_end, :as_of, invoice_id, :now
FROM json_to_recordset(CAST(:rows AS json)) AS made (subscription_id text, period_start timestamptz,
    period_end timestamptz, invoice_id text)
ON CONFLICT (subscription_id, period_start) DO UPDATE SET usage_as_of = excluded.usage_as_of, changed_at = NULL,
    invoice_id = coalesce(excluded.invoice_id, billed_periods.invoice_id)
""")
_LOOK = text("""
INSERT INTO subscription_billing (subscription_id, look_at, usage_billed_until)
SELECT id, CASE WHEN billed_by = 'own' THEN CAST(:now AS timestamptz) END, started_at FROM subscriptions
WHERE id = ANY (CAST(:ids AS text[]))
ORDER BY id
ON CONFLICT (subscription_id) DO UPDATE SET look_at = least(subscription_billing.look_at, excluded.look_at)
""")
_DUE = text("""
SELECT subscription_id FROM subscription_billing WHERE look_at <= :now
ORDER BY look_at, subscription_id LIMIT :limit
""")
_PUT_OFF = text("""
UPDATE subscription_billing SET look_at = :until WHERE subscription_id = :id AND look_at <= :now
""")
_UNKNOWN = text("""
SELECT id FROM subscriptions
WHERE NOT EXISTS (SELECT 1 FROM subscription_billing WHERE subscription_id = subscriptions.id)
ORDER BY id LIMIT :limit
""")


async def look_at_changed(session: AsyncSession, *, now: datetime) -> int:
    """Take news of subscriptions that changed: each is looked at from `now` on; returns how many rows of news."""
    rows = await claim(session, topics=[Topic.SUBSCRIPTION_CHANGED], limit=NEWS_AT_ONCE)
    await look_at(session, {row.entity_id for row in rows}, now=now)
    await finish(session, [row.id for row in rows], now)
    return len(rows)


async def look_at(session: AsyncSession, subscription_ids: Collection[str], *, now: datetime) -> None:
    """Have billing look at subscriptions, also those that it did not know of. Idempotent."""
    if subscription_ids:
        await session.execute(_LOOK, {"ids": sorted(subscription_ids), "now": now})


async def look_at_unknown(session: AsyncSession, *, now: datetime, limit: int = 10_000) -> int:
    """Have billing look at subscriptions that nobody has told it of; returns how many."""
    ids = list((await session.execute(_UNKNOWN, {"limit": limit})).scalars())
    await look_at(session, ids, now=now)
    return len(ids)


async def due_ids(session: AsyncSession, *, now: datetime, limit: int) -> list[str]:
    """Return the subscriptions that are due for a look first, whoever holds them."""
    return list((await session.execute(_DUE, {"now": now, "limit": limit})).scalars())


async def put_off(session: AsyncSession, subscription_id: str, *, until: datetime, now: datetime) -> None:
    """Look at a subscription that is due only at a later moment."""
    await session.execute(_PUT_OFF, {"id": subscription_id, "until": until, "now": now})


async def note_progress(
    session: AsyncSession, works: Sequence[Work], *, rules: ClosingRules, now: datetime
) -> None:
    """Write down which periods are billed, and when to look next."""
    closed = [
        {
            "subscription_id": work.subscription_id,
            "period_start": period.start,
            "period_end": period.end,
            "invoice_id": work.invoice_id,
        }
        for work in works
        if work.step.kind is StepKind.CLOSE and not work.waits_for_usage
        for period in work.usage_periods
    ]
    if closed:
        await session.execute(_PERIODS, {"rows": as_json(closed), "as_of": now - SEAL_MARGIN, "now": now})
    after = []
    for work in works:
        look, until = _after(work, rules, now)
        after.append({"id": work.subscription_id, "look_at": look, "billed_until": until})
    await session.execute(_SET, {"rows": as_json(after)})


def _after(work: Work, rules: ClosingRules, now: datetime) -> tuple[datetime | None, datetime]:
    """Return when to look next, None for never, and up to when usage is billed then."""
    step = work.step
    if step.kind is StepKind.SKIP:
        return now, step.period.end
    if step.kind is StepKind.CLOSE and not work.waits_for_usage:
        return _look_after_closing(work, now), max(step.period.end, work.billed_until)
    looks = {
        StepKind.NONE: None,
        StepKind.ADVANCE: next_look(work.timeline, step.period, now),
        StepKind.DRAFT: min(step.closes_at + rules.grace, now + rules.refresh),
        StepKind.CLOSE: now + rules.retry,
    }
    return looks[step.kind], work.billed_until


def _look_after_closing(work: Work, now: datetime) -> datetime | None:
    upcoming = work.step.next_period
    if upcoming is None:
        return None
    return next_look(work.timeline, upcoming, now) if now < upcoming.end else now
