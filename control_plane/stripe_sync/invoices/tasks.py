"""What is done with a draft of Stripe's before it becomes final, step by step.

Each step looks at what is, does one thing, and writes down that it did, so that a worker that dies between any two
leaves nothing undone and nothing done twice. A draft that is not ready ten minutes before Stripe would make it
final is held, and made final by ourselves; after three days somebody is called.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.facts import BillingFacts, billing_facts
from control_plane.stripe_sync.invoices.mirror import refresh_invoice, refresh_invoices
from control_plane.stripe_sync.invoices.planning import OPEN, decide, lock_adjustments
from control_plane.stripe_sync.invoices.putting import put_item
from control_plane.stripe_sync.invoices.readiness import why_not_ready
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoice, StripeInvoiceTask
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.usage.rows import is_being_sent, lock_queue
from control_plane.stripe_sync.usage.summaries import NotWholeUnitsError

HOLD_BEFORE: Final = timedelta(minutes=10)
ALARM_AFTER: Final = timedelta(hours=72)
PAUSES: Final = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=5))
AFTER_FAILURE: Final = timedelta(minutes=1)
log = structlog.get_logger(__name__)


async def work_tasks(ctx: StripeContext, *, limit: int = 50) -> int:
    """Go on with drafts whose time has come; returns with how many. Failures of one do not hold up others."""
    async with ctx.sessions() as session:
        statement = (
            select(StripeInvoiceTask.invoice_id)
            .where(StripeInvoiceTask.look_at <= ctx.now)
            .order_by(StripeInvoiceTask.look_at, StripeInvoiceTask.invoice_id)
            .limit(limit)
        )
        due: Sequence[str] = (await session.scalars(statement)).all()
    for invoice_id in due:
        try:
            await work_task(ctx, invoice_id)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is noted, and others go on
            metrics.FAILURES.labels("tasks").inc()
            await log.awarning("stripe_draft_put_off", invoice=invoice_id, error=repr(error))
            await _put_off(ctx, invoice_id, reason=f"it failed: {error}", pause=AFTER_FAILURE)
    async with ctx.sessions() as session:
        held = select(func.count()).where(
            StripeInvoiceTask.held_at.is_not(None), StripeInvoiceTask.state.in_(OPEN)
        )
        metrics.HELD.set(await session.scalar(held) or 0)
    return len(due)


async def work_task(ctx: StripeContext, invoice_id: str) -> str | None:
    """Take a draft as far as it goes now; returns its task's state, None where another process has it in hand.

    Raises:
        StripeRefused, StripeUnavailable: to be called again.
    """
    async with sole_worker(ctx.sessions, _lock_key(invoice_id)) as mine:
        if not mine:
            return None
        while True:
            task = await _task(ctx, invoice_id)
            if task is None or task.state not in OPEN:
                return None if task is None else task.state
            if not await _STEPS[task.state](ctx, task):
                return (await _task(ctx, invoice_id) or task).state


async def _wait(ctx: StripeContext, task: StripeInvoiceTask) -> bool:
    """Look whether everything of the period is at Stripe; then decide what is left to us."""
    await refresh_invoice(ctx, task.invoice_id)
    async with ctx.sessions() as session:
        invoice = await session.get_one(StripeInvoice, task.invoice_id)
    if invoice.status != "draft":
        await _end(ctx, task, "gone" if invoice.status in {"deleted", "void"} else "late", "it was final before")
        return False
    reason = await _why_not_ready(ctx, task, invoice)
    if reason is not None:
        await _hold_if_late(ctx, task, invoice)
        await _put_off(ctx, task.invoice_id, reason=reason, pause=PAUSES[min(task.attempts, len(PAUSES) - 1)])
        return False
    await refresh_invoice(ctx, task.invoice_id)  # with what was sent just now, and discounts on it
    if await _decide(ctx, task):
        return True
    await _put_off(ctx, task.invoice_id, reason="usage is being sent to Stripe", pause=PAUSES[0])
    return False


async def _decide(ctx: StripeContext, task: StripeInvoiceTask) -> bool:
    """Decide the adjustments; False where Stripe is being asked to take usage, so that nobody knows what it has.

    What waits to be sent after this is not sent any more: the adjustments are for it.
    """
    async with ctx.sessions() as session, session.begin():
        locked = await _locked(session, task.invoice_id)
        if locked.state != "waiting":
            return True
        await lock_adjustments(session, task.subscription_id)
        await lock_queue(session)
        if await is_being_sent(session, subscription_id=task.subscription_id, until=task.period_end):
            return False
        await decide(session, await billing_facts(session, task.subscription_id), locked, now=ctx.now)
        locked.state, locked.reason, locked.usage_as_of = "adjusting", "", ctx.now
    return True


async def _adjust(ctx: StripeContext, task: StripeInvoiceTask) -> bool:
    """Put what was decided on the draft, one after the other."""
    async with ctx.sessions() as session:
        statement = select(StripeAdjustment).where(
            StripeAdjustment.invoice_id == task.invoice_id,
            StripeAdjustment.way == "item",
            StripeAdjustment.state == "wanted",
        )
        wanted = (await session.scalars(statement.order_by(StripeAdjustment.id))).all()
        facts = await billing_facts(session, task.subscription_id)
    refused = 0
    for one in wanted:
        period = facts.timeline.period_at(one.period_start)
        product_id = _product(facts, one.charge_key)
        made = await put_item(ctx, one, customer_id=facts.row.customer_id, product_id=product_id, period=period)
        refused += not made
    if wanted:
        await refresh_invoice(ctx, task.invoice_id)
    async with ctx.sessions() as session, session.begin():
        locked = await _locked(session, task.invoice_id)
        if refused:  # mostly it became final in between: the next draft finds what is missing
            locked.usage_as_of = None
            locked.reason = f"Stripe refused {refused} of {len(wanted)} items"
        if locked.held_at is not None:
            locked.state = "releasing"
            return True
        reason = locked.reason
    await _end(ctx, task, "late" if refused else "done", reason)
    return False


async def _release(ctx: StripeContext, task: StripeInvoiceTask) -> bool:
    """Make final what we held."""
    await refresh_invoice(ctx, task.invoice_id)
    async with ctx.sessions() as session:
        invoice = await session.get_one(StripeInvoice, task.invoice_id)
    if invoice.status == "draft":
        key = options(f"km:{ctx.config.installation}:finalise:{task.invoice_id}:{task.attempts}")
        try:
            await ctx.stripe.call(
                lambda c: c.v1.invoices.finalize_invoice_async(task.invoice_id, {"auto_advance": True}, key)
            )
        except StripeRefused as refused:
            await _alarm_if_late(ctx, task, refused.sentence)
            await _put_off(ctx, task.invoice_id, reason=refused.sentence, pause=PAUSES[-1])
            return False
        await refresh_invoice(ctx, task.invoice_id)
    # items that were refused are wanted still
    await _end(ctx, task, "done" if task.usage_as_of is not None else "late", task.reason)
    return False


_STEPS: Final = {"waiting": _wait, "adjusting": _adjust, "releasing": _release}


async def _why_not_ready(ctx: StripeContext, task: StripeInvoiceTask, invoice: StripeInvoice) -> str | None:
    """Return what it waits for, or why Stripe does not say; read first what Stripe has changed and charged."""
    try:
        if invoice.stripe_subscription_id is not None:
            await apply_subscription(ctx, invoice.stripe_subscription_id)
            await refresh_invoices(ctx, invoice.stripe_subscription_id, since=task.period_start)
        return await why_not_ready(ctx, task)
    except (StripeRefused, StripeUnavailable, NotWholeUnitsError) as failed:
        return failed.message


async def _hold_if_late(ctx: StripeContext, task: StripeInvoiceTask, invoice: StripeInvoice) -> None:
    """Have Stripe not make it final by itself, shortly before it would; after three days call somebody."""
    due_at = invoice.finalizes_at
    if due_at is not None and due_at - ctx.now <= HOLD_BEFORE:
        if task.held_at is None:
            # noted first: where the answer is lost, nobody else would make it final
            await _set(ctx, task.invoice_id, held_at=ctx.now)
            metrics.TASKS.labels("held").inc()
            await log.awarning("stripe_draft_held", invoice=task.invoice_id, subscription_id=task.subscription_id)
        key = options(f"km:{ctx.config.installation}:hold:{task.invoice_id}:{task.attempts}")
        await ctx.stripe.call(lambda c: c.v1.invoices.update_async(task.invoice_id, {"auto_advance": False}, key))
    await _alarm_if_late(ctx, task, task.reason)


async def _alarm_if_late(ctx: StripeContext, task: StripeInvoiceTask, reason: str) -> None:
    if task.alarmed_at is None and ctx.now - task.created_at >= ALARM_AFTER:
        await _set(ctx, task.invoice_id, alarmed_at=ctx.now)
        metrics.ALARMS.labels("held_too_long").inc()
        await log.aerror("stripe_draft_waits_too_long", invoice=task.invoice_id, reason=reason)


async def _put_off(ctx: StripeContext, invoice_id: str, *, reason: str, pause: timedelta) -> None:
    async with ctx.sessions() as session, session.begin():
        await session.execute(
            update(StripeInvoiceTask)
            .where(StripeInvoiceTask.invoice_id == invoice_id, StripeInvoiceTask.state.in_(OPEN))
            .values(reason=reason, look_at=ctx.now + pause, attempts=StripeInvoiceTask.attempts + 1)
        )


async def _end(ctx: StripeContext, task: StripeInvoiceTask, state: str, reason: str) -> None:
    await _set(ctx, task.invoice_id, state=state, reason=reason, look_at=None, done_at=ctx.now)
    metrics.TASKS.labels(state).inc()
    await log.ainfo("stripe_draft_seen_to", invoice=task.invoice_id, state=state, reason=reason)


async def _set(ctx: StripeContext, invoice_id: str, **values: str | datetime | None) -> None:
    async with ctx.sessions() as session, session.begin():
        await session.execute(
            update(StripeInvoiceTask).where(StripeInvoiceTask.invoice_id == invoice_id).values(**values)
        )


async def _task(ctx: StripeContext, invoice_id: str) -> StripeInvoiceTask | None:
    async with ctx.sessions() as session:
        return await session.get(StripeInvoiceTask, invoice_id)


async def _locked(session: AsyncSession, invoice_id: str) -> StripeInvoiceTask:
    return (
        await session.scalars(
            select(StripeInvoiceTask).where(StripeInvoiceTask.invoice_id == invoice_id).with_for_update()
        )
    ).one()


def _product(facts: BillingFacts, charge_key: str) -> str | None:
    """Return the product of the plan that a charge is of."""
    version_id = charge_key.partition("/")[0]
    found = (price.product_id for key, price in facts.sold.items() if key.partition("/")[0] == version_id)
    return next(found, None)


def _lock_key(invoice_id: str) -> int:
    digest = hashlib.sha256(f"stripe draft {invoice_id}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
