"""What is found when an invoice of Stripe's is final already: given back by a credit note, or left to the next.

Less use than was billed is given back on the invoice that billed it, if that is young enough and the amount worth
a note; else it lowers the next invoice. More use is charged by the next invoice. Where none follows, what is too
much is given back all the same, and what is too little is written off, and both are kept.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.adjustments import Wanted
from control_plane.stripe_sync.invoices.crediting import put_credit_notes
from control_plane.stripe_sync.invoices.facts import BillingFacts, billing_facts
from control_plane.stripe_sync.invoices.planning import (
    OPEN,
    changed_tasks,
    is_billed,
    lock_adjustments,
    plan_period,
    sealed_since,
    write_adjustment,
)
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoice, StripeInvoiceTask
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.model import OVER_AT_STRIPE
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription
from control_plane.usage.unsettled import UsageSpan, unsettled_subscriptions

LAST_INVOICE_WITHIN: Final = timedelta(hours=2)
NOTE_WITHIN: Final = timedelta(days=60)
NOTE_FROM_MINOR: Final = 100
CREDITABLE: Final = ("open", "paid")
AT_ONCE: Final = 200
log = structlog.get_logger(__name__)


async def correct_billed(ctx: StripeContext) -> int:
    """Look at billed periods of which something was sealed since; returns how many corrections were decided.

    Then makes the credit notes that are wanted, also those of earlier calls.

    Raises:
        StripeUnavailable: a credit note could not be made; to be called again.
    """
    async with ctx.sessions() as session:
        due = await _changed_subscriptions(session, now=ctx.now)
    decided = 0
    for subscription_id in due:
        try:
            async with ctx.sessions() as session, session.begin():
                decided += await _correct(session, subscription_id, now=ctx.now)
        except (KmError, ValueError, LookupError, ArithmeticError) as error:
            metrics.FAILURES.labels("corrections").inc()
            await log.awarning("stripe_period_not_corrected", subscription_id=subscription_id, error=repr(error))
    await put_credit_notes(ctx)
    return decided


async def _changed_subscriptions(session: AsyncSession, *, now: datetime) -> Sequence[str]:
    task = StripeInvoiceTask
    statement = (
        select(task.subscription_id)
        .join(StripeSubscription, StripeSubscription.subscription_id == task.subscription_id)
        .where(
            *is_billed(now=now),
            or_(task.usage_as_of.is_(None), exists().where(*sealed_since(StripeSubscription.account_id))),
        )
        .group_by(task.subscription_id)
        # many may wait for their next invoice: each has its turn some time
        .order_by(func.random())
        .limit(AT_ONCE)
    )
    return (await session.scalars(statement)).all()


async def _correct(session: AsyncSession, subscription_id: str, *, now: datetime) -> int:
    await lock_adjustments(session, subscription_id)
    facts = await billing_facts(session, subscription_id)
    is_over = await _is_over(session, facts, now=now)
    decided = 0
    for task in await changed_tasks(session, facts, now=now):
        period = facts.period_of(task.period_start, task.period_end)
        span = UsageSpan(
            subscription_id=subscription_id,
            account_id=facts.timeline.account_id,
            start=period.start,
            end=min(period.end, facts.timeline.ends_at or period.end),
        )
        if await unsettled_subscriptions(session, [span]):
            continue
        plan = await plan_period(session, facts, period, on_draft=False)
        invoice = await session.get(StripeInvoice, task.invoice_id)
        refused = await _refused_notes(session, task.invoice_id)
        waits = False
        for one in plan.wanted:
            takes_note = None if one.line.charge_key in refused else invoice
            way = way_of(one.amount_minor, takes_note, is_over=is_over, now=now)
            if way is None:
                waits = True
                continue
            note_on = task.invoice_id if way == "credit_note" else None
            await write_adjustment(session, subscription_id, period, one, invoice_id=note_on, way=way, now=now)
            _tell(facts, one, way)
            decided += 1
        if not waits:
            task.usage_as_of = now
    return decided


async def _is_over(session: AsyncSession, facts: BillingFacts, *, now: datetime) -> bool:
    """Say whether no invoice follows: the subscription is over, and its last draft was heard of and seen to."""
    row, task = facts.row, StripeInvoiceTask
    if row.status not in OVER_AT_STRIPE:
        return False
    if row.ended_at is not None and now - row.ended_at < LAST_INVOICE_WITHIN:
        return False
    is_open = exists().where(task.subscription_id == row.subscription_id, task.state.in_(OPEN))
    return not await session.scalar(select(is_open))


async def _refused_notes(session: AsyncSession, invoice_id: str) -> set[str]:
    """Return the charges that Stripe would make no note for."""
    statement = select(StripeAdjustment.charge_key).where(
        StripeAdjustment.invoice_id == invoice_id,
        StripeAdjustment.way == "credit_note",
        StripeAdjustment.state == "refused",
    )
    return set(await session.scalars(statement))


def way_of(amount_minor: int, invoice: StripeInvoice | None, *, is_over: bool, now: datetime) -> str | None:
    """Return how a difference of a billed period is made good; None: the next invoice does it.

    `invoice`: what would take a credit note, None where none does.
    """
    can_note = invoice is not None and invoice.status in CREDITABLE
    if amount_minor > 0:
        return "written_off" if is_over else None
    if is_over:
        return "credit_note" if can_note else "written_off"
    made_at = None if invoice is None else invoice.finalised_at
    is_young = made_at is not None and now - made_at <= NOTE_WITHIN
    return "credit_note" if can_note and is_young and -amount_minor >= NOTE_FROM_MINOR else None


def _tell(facts: BillingFacts, wanted: Wanted, way: str) -> None:
    metrics.ADJUSTMENTS.labels(wanted.cause, "written_off" if way == "written_off" else "decided").inc()
    log.info(
        "stripe_invoice_corrected",
        subscription_id=facts.row.subscription_id,
        charge=wanted.line.charge_key,
        amount_minor=wanted.amount_minor,
        cause=wanted.cause,
        way=way,
    )
