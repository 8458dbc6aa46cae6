"""Whether everything of a draft's period is at Stripe: collected and sealed here, delivered, and counted there."""

from datetime import timedelta
from typing import Final

from control_plane.stripe_sync.invoices.facts import billing_facts
from control_plane.stripe_sync.invoices.tables import StripeInvoiceTask
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.usage.comparing import compare_summaries
from control_plane.stripe_sync.usage.flushing import flush
from control_plane.usage.unsettled import UsageSpan, unsettled_subscriptions

MINUTE: Final = timedelta(minutes=1)


async def why_not_ready(ctx: StripeContext, task: StripeInvoiceTask) -> str | None:
    """Return what a draft waits for, None where its adjustments can be decided. Sends what is not sent yet.

    Raises:
        StripeRefused, StripeUnavailable: Stripe did not say what it counts.
    """
    async with ctx.sessions() as session:
        facts = await billing_facts(session, task.subscription_id)
        period = facts.period_of(task.period_start, task.period_end)
        span = UsageSpan(
            subscription_id=task.subscription_id,
            account_id=facts.timeline.account_id,
            start=period.start,
            end=min(period.end, facts.timeline.ends_at or period.end),
        )
        if not any(phase.costs for phase in facts.timeline.phases_within(period)):
            return None
        if await unsettled_subscriptions(session, [span]):
            return "usage of the period is not sealed yet"
    sent = await flush(
        ctx.sessions, ctx.stripe, subscription_id=task.subscription_id, until=period.end, clock=lambda: ctx.now
    )
    if not sent.all_delivered:
        return f"usage of {len(sent.waiting_hours)} hours is not at Stripe yet"
    differences = await compare_summaries(
        ctx.sessions,
        ctx.stripe,
        subscription_id=task.subscription_id,
        start=task.period_start,
        end=task.period_end,
    )
    if differences:
        more = ", ".join(f"{one.meter} by {one.units:+,}" for one in differences)
        return f"Stripe does not count what was delivered: {more}"
    return None
