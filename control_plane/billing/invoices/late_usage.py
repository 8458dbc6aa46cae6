"""Usage that was sealed after its billing period was billed: which periods must be looked at again.

The ledger of sealed usage is read once, by the moments of its seals, with some of what was read before: a seal
commits after the moment that it bears. Reading a seal twice changes nothing.
"""

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.progress import SEAL_MARGIN, look_at

WATERMARK = "late_usage"
READ_AGAIN = SEAL_MARGIN + timedelta(minutes=5)

_SEEN = text("SELECT seen_until FROM billing_watermarks WHERE name = :name FOR UPDATE")
_BEGIN = text("""
INSERT INTO billing_watermarks (name, seen_until)
SELECT :name, coalesce((SELECT min(usage_as_of) FROM billed_periods), :now)
ON CONFLICT DO NOTHING
""")
_SET = text("UPDATE billing_watermarks SET seen_until = greatest(seen_until, :now) WHERE name = :name")
# `period.changed_at IS NULL` is judged again after waiting for a round of billing that holds the row
_MARK = text("""
WITH late AS MATERIALIZED (
    SELECT DISTINCT phase_id, hour, sealed_at FROM usage_ledger
    WHERE sealed_at > :since AND phase_id <> ''
        AND hour < (SELECT max(period_end) FROM billed_periods)
)
UPDATE billed_periods AS period SET changed_at = :now
FROM late JOIN subscription_phases AS phase ON phase.id = late.phase_id
WHERE period.subscription_id = phase.subscription_id
    AND late.hour >= period.period_start AND late.hour < period.period_end
    AND late.sealed_at > period.usage_as_of AND period.changed_at IS NULL
RETURNING period.subscription_id
""")
_OVER = text("""
SELECT DISTINCT subscription_id FROM billed_periods
JOIN subscription_billing USING (subscription_id)
JOIN subscriptions ON subscriptions.id = subscription_id
WHERE changed_at IS NOT NULL AND look_at IS NULL AND billed_by = 'own'
""")


async def find_late_usage(session: AsyncSession, *, now: datetime) -> int:
    """Mark billed periods of which usage was sealed since; returns how many. Idempotent.

    The difference goes to the subscription's next invoice; for one that is over, see `look_at_over`.
    """
    seen_until = (await session.execute(_SEEN, {"name": WATERMARK})).scalar()
    if seen_until is None:
        await session.execute(_BEGIN, {"name": WATERMARK, "now": now})
        seen_until = (await session.execute(_SEEN, {"name": WATERMARK})).scalar_one()
    marked = list((await session.execute(_MARK, {"since": seen_until - READ_AGAIN, "now": now})).scalars())
    await session.execute(_SET, {"name": WATERMARK, "now": now})
    return len(marked)


async def look_at_over(session: AsyncSession, *, now: datetime) -> int:
    """Have billing look again at subscriptions that are over and billed, but changed since; returns how many.

    To be called each time, not only after periods were marked: a round that closes a last period at that moment
    may hide that the subscription is over.
    """
    over = list((await session.execute(_OVER)).scalars())
    await look_at(session, over, now=now)
    return len(over)
