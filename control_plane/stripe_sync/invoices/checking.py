"""Checking Stripe's final invoices and keeping what came of it: each once, soon after it is final."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.catalog.queries import StripePriceRef, price_refs
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.checks import ActualLine, Checked, CheckFacts, Difference, Found, check
from control_plane.stripe_sync.invoices.discounts import discounts_at
from control_plane.stripe_sync.invoices.facts import MILLISECOND, BillingFacts, billing_facts
from control_plane.stripe_sync.invoices.lines import Span
from control_plane.stripe_sync.invoices.putting import item_minor
from control_plane.stripe_sync.invoices.reading import CYCLE
from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeInvoice,
    StripeInvoiceCheck,
    StripeInvoiceLine,
)
from control_plane.stripe_sync.invoices.totals import LineKind
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription
from control_plane.stripe_sync.usage.tables import StripeUsageRow

CHECKED: Final = ("open", "paid", "uncollectible")
AT_ONCE: Final = 50
WAIT_FOR_SUBSCRIPTION: Final = timedelta(minutes=10)
CREATE: Final = "subscription_create"
log = structlog.get_logger(__name__)


async def check_invoices(ctx: StripeContext, *, limit: int = AT_ONCE) -> int:
    """Check final invoices that were not checked yet; returns how many. One that cannot be is tried again.

    An invoice may be heard of before the change of its subscription that made it: it waits a while for that to be
    read, and one that differed is looked at again when its subscription was.
    """
    is_ready = (StripeSubscription.read_at >= StripeInvoice.created_at) | (
        StripeInvoice.created_at < ctx.now - WAIT_FOR_SUBSCRIPTION
    )
    is_read_since = (StripeSubscription.read_at > StripeInvoiceCheck.checked_at) & ~StripeInvoiceCheck.agrees
    async with ctx.sessions() as session:
        statement = (
            select(StripeInvoice.id)
            .join(StripeSubscription, StripeSubscription.subscription_id == StripeInvoice.subscription_id)
            .outerjoin(StripeInvoiceCheck, StripeInvoiceCheck.invoice_id == StripeInvoice.id)
            .where(
                StripeInvoice.status.in_(CHECKED),
                (StripeInvoiceCheck.invoice_id.is_(None) & is_ready) | is_read_since,
            )
            .order_by(StripeInvoice.created_at, StripeInvoice.id)
            .limit(limit)
        )
        due: Sequence[str] = (await session.scalars(statement)).all()
    done = 0
    for invoice_id in due:
        try:
            async with ctx.sessions() as session, session.begin():
                await check_invoice(session, invoice_id, now=ctx.now)
            done += 1
        except (KmError, ValueError, LookupError, ArithmeticError) as error:
            metrics.FAILURES.labels("checks").inc()
            await log.awarning("stripe_invoice_not_checked", invoice=invoice_id, error=repr(error))
            async with ctx.sessions() as session, session.begin():
                await _note_unchecked(session, invoice_id, error, now=ctx.now)
    return done


async def _note_unchecked(session: AsyncSession, invoice_id: str, error: Exception, *, now: datetime) -> None:
    """Put down that an invoice could not be checked: it waits until its subscription is read again."""
    invoice = await session.get_one(StripeInvoice, invoice_id)
    total_minor = invoice.subtotal_minor - invoice.discount_minor
    found = Found(
        what=f"it could not be checked: {type(error).__name__}",
        cause=Difference.NOT_CHECKED,
        expected_minor=0,
        actual_minor=total_minor,
    )
    values: dict[str, object] = {
        "invoice_id": invoice_id,
        "account_id": invoice.account_id,
        "subscription_id": invoice.subscription_id,
        "expected_minor": 0,
        "actual_minor": total_minor,
        "agrees": False,
        "differences": [found.as_dict()],
        "expected": {},
        "unknown": [],
        "checked_at": now,
    }
    await _keep(session, values)


async def _keep(session: AsyncSession, values: dict[str, object]) -> None:
    await session.execute(
        upsert(StripeInvoiceCheck)
        .values(values)
        .on_conflict_do_update(index_elements=[StripeInvoiceCheck.invoice_id], set_=values)
    )


async def check_invoice(session: AsyncSession, invoice_id: str, *, now: datetime) -> Checked:
    """Check one final invoice and keep what came of it, in the place of what was kept before; nothing commits."""
    invoice = await session.get_one(
        StripeInvoice, invoice_id, options=[selectinload(StripeInvoice.lines)], populate_existing=True
    )
    facts = await billing_facts(session, invoice.subscription_id or "")
    lines = await _lines(session, facts, invoice)
    checked = check(lines, await _check_facts(session, facts, invoice))
    values: dict[str, object] = {
        "invoice_id": invoice_id,
        "account_id": invoice.account_id,
        "subscription_id": facts.row.subscription_id,
        "expected_minor": checked.expected_minor,
        "actual_minor": checked.actual_minor,
        "agrees": checked.agrees,
        "differences": [found.as_dict() for found in checked.differences],
        "expected": {"lines": len(lines)},
        "unknown": ["tax"] if invoice.automatic_tax else [],
        "checked_at": now,
    }
    await _keep(session, values)
    metrics.CHECKS.labels("agrees" if checked.agrees else "differs").inc()
    if not checked.agrees:
        told = [one.as_dict() for one in checked.differences]
        await log.aerror("stripe_invoice_differs", invoice=invoice_id, differences=told)
    return checked


async def _lines(session: AsyncSession, facts: BillingFacts, invoice: StripeInvoice) -> list[ActualLine]:
    refs = await price_refs(session, {line.price_id for line in invoice.lines if line.price_id})
    return [
        await _delivered(session, facts, _actual(line), refs.get(line.price_id or "")) for line in invoice.lines
    ]


def _actual(line: StripeInvoiceLine) -> ActualLine:
    return ActualLine(
        kind=LineKind(line.kind),
        charge_key=line.charge_key,
        item_id=line.item_id,
        adjustment_id=line.adjustment_id,
        description=line.description,
        amount_minor=line.amount_minor,
        discount_minor=line.discount_minor,
        quantity=line.quantity,
        span=Span(line.period_start, line.period_end),
    )


async def _delivered(
    session: AsyncSession, facts: BillingFacts, line: ActualLine, ref: StripePriceRef | None
) -> ActualLine:
    """Say of a metered line what we delivered for its span, by the moments that it bears at Stripe."""
    if line.kind is not LineKind.METERED or ref is None:
        return line
    units = await session.scalar(
        select(func.sum(StripeUsageRow.delta_units)).where(
            StripeUsageRow.customer_id == facts.row.customer_id,
            StripeUsageRow.event_name == ref.event_name,
            StripeUsageRow.state == "delivered",
            StripeUsageRow.stripe_at >= line.span.starts_at,
            StripeUsageRow.stripe_at < line.span.ends_at,
        )
    )
    return replace(line, delivered=int(units or 0))


async def _check_facts(session: AsyncSession, facts: BillingFacts, invoice: StripeInvoice) -> CheckFacts:
    adjustments = await session.scalars(
        select(StripeAdjustment).where(
            StripeAdjustment.invoice_id == invoice.id,
            StripeAdjustment.way == "item",
            StripeAdjustment.state == "done",
        )
    )
    period = _period(facts, invoice)
    trial_end = facts.row.trial_end
    return CheckFacts(
        currency=invoice.currency,
        sold=facts.sold,
        period=period,
        in_trial=trial_end is not None and invoice.created_at < trial_end,
        adjustments={one.id: item_minor(one) for one in adjustments},
        paid_ahead=await _paid_ahead(session, facts, period),
        must_have=_must_have(facts, invoice),
        discounts=await discounts_at(session, facts.row.subscription_id, at=invoice.created_at),
    )


def _period(facts: BillingFacts, invoice: StripeInvoice) -> Span:
    """Return Stripe's period that the invoice's prorations are parts of: ours, as far behind as its anchor is."""
    anchor = facts.row.billing_cycle_anchor
    behind = anchor - floor_hour(anchor)
    ends = [line.period_end for line in invoice.lines if line.proration]
    last = max(ends) if ends else invoice.created_at
    ours = facts.timeline.period_at(floor_hour(last) - MILLISECOND if ends else last)
    return Span(ours.start + behind, ours.end + behind)


async def _paid_ahead(session: AsyncSession, facts: BillingFacts, period: Span) -> dict[str, int]:
    line = StripeInvoiceLine
    rows = await session.execute(
        select(line.charge_key, line.amount_minor - line.discount_minor)
        .join(StripeInvoice, StripeInvoice.id == line.invoice_id)
        .where(
            StripeInvoice.subscription_id == facts.row.subscription_id,
            line.kind == LineKind.FLAT.value,
            line.period_start == period.starts_at,
            line.period_end == period.ends_at,
        )
    )
    return {key: amount for key, amount in rows}  # noqa: C416 - rows are no pairs to mypy


def _must_have(facts: BillingFacts, invoice: StripeInvoice) -> frozenset[str]:
    """Return the fixed prices that are charged ahead by an invoice that begins a period."""
    timeline = facts.timeline
    if invoice.billing_reason == CREATE:
        phase = timeline.phase_at(invoice.created_at) or timeline.phases[0]
    elif invoice.billing_reason == CYCLE:
        found = timeline.phase_at(floor_hour(invoice.period_end))
        if found is None:
            return frozenset()
        phase = found
    else:
        return frozenset()
    held = {phase.plan_version_id, *(one.plan_version_id for one in phase.add_ons)}
    return frozenset(
        key for key, price in facts.sold.items() if price.kind is LineKind.FLAT and key.partition("/")[0] in held
    )
