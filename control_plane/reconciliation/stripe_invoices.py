"""What we expected Stripe's invoices to say, against what they say; and what we could not put on them."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Row, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span, not_checked
from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeInvoice,
    StripeInvoiceCheck,
    StripeInvoiceTask,
)
from control_plane.subscriptions.tables import Subscription

WHAT = "Stripe's final invoices"
FINAL = ("open", "paid", "uncollectible")
CHECKED_WITHIN = timedelta(hours=1)


async def compare_stripe_invoices(session: AsyncSession, span: Span) -> Comparison:
    """Compare invoices whose period ended in the span, or that were made in it."""
    invoices = (
        (StripeInvoice.created_at >= span.start) & (StripeInvoice.created_at < span.end + timedelta(hours=1)),
        *((StripeInvoice.account_id == span.account_id,) if span.account_id else ()),
    )
    rows: Sequence[Row[StripeInvoice, StripeInvoiceCheck | None]] = (
        await session.execute(
            select(StripeInvoice, StripeInvoiceCheck)
            .outerjoin(StripeInvoiceCheck, StripeInvoiceCheck.invoice_id == StripeInvoice.id)
            .where(*invoices, StripeInvoice.status.in_(FINAL), StripeInvoice.subscription_id.is_not(None))
            .order_by(StripeInvoice.created_at, StripeInvoice.id)
        )
    ).all()
    comparison = (
        Comparison(link=Link.STRIPE_INVOICES, checked_what=WHAT)
        if rows
        else not_checked(Link.STRIPE_INVOICES, "Stripe has made no invoice in this span.", what=WHAT)
    )
    for invoice, check in rows:
        if check is None:
            fresh = invoice.finalised_at is not None and span.now - invoice.finalised_at < CHECKED_WITHIN
            comparison.differences.append(
                _of_invoice(
                    invoice,
                    severity=Severity.WAITING if fresh else Severity.WRONG,
                    cause="not_compared",
                    detail=f"{invoice.number or invoice.id} was not compared with what we expected of it",
                    expected=0,
                    found=invoice.total_minor,
                )
            )
            continue
        comparison.checked += 1
        if not check.agrees:
            comparison.differences += [
                _of_invoice(
                    invoice,
                    severity=Severity.WRONG,
                    cause=one["cause"],
                    detail=f"{invoice.number or invoice.id}: {one['what']}",
                    expected=one["expected_minor"],
                    found=one["actual_minor"],
                )
                for one in check.differences
                if one["cause"] != "rounding"
            ]
    comparison.differences += await _unfinished(session, span)
    return comparison


async def _unfinished(session: AsyncSession, span: Span) -> list[Difference]:
    """Return adjustments that Stripe refused, or that are on their way; and drafts that wait."""
    found = []
    again = aliased(StripeAdjustment)
    was_mended = exists().where(
        StripeAdjustment.charge_key != "",
        again.subscription_id == StripeAdjustment.subscription_id,
        again.period_start == StripeAdjustment.period_start,
        again.charge_key == StripeAdjustment.charge_key,
        again.turn > StripeAdjustment.turn,
        again.state == "done",
    )
    adjustments = await session.execute(
        select(StripeAdjustment, Subscription.account_id)
        .join(Subscription, Subscription.id == StripeAdjustment.subscription_id)
        .where(
            StripeAdjustment.state != "done",
            StripeAdjustment.period_start >= span.start,
            StripeAdjustment.period_start < span.end,
            *((Subscription.account_id == span.account_id,) if span.account_id else ()),
            ~was_mended,
        )
        .order_by(StripeAdjustment.id)
    )
    for row, account_id in adjustments:
        refused = row.state == "refused"
        found.append(
            Difference(
                link=Link.STRIPE_INVOICES,
                severity=Severity.WRONG if refused else Severity.WAITING,
                account_id=account_id,
                subscription_id=row.subscription_id,
                start=row.period_start,
                end=row.period_start,
                unit=row.currency,
                expected=row.amount_minor,
                found=0,
                cause="adjustment_refused" if refused else "adjustment_waits",
                detail=f"{row.description}: {row.refusal}" if refused else f"{row.description}: on its way",
            )
        )
    tasks = await session.execute(
        select(StripeInvoiceTask, StripeInvoice)
        .join(StripeInvoice, StripeInvoice.id == StripeInvoiceTask.invoice_id)
        .where(
            StripeInvoiceTask.done_at.is_(None),
            StripeInvoiceTask.state.in_(("waiting", "adjusting", "releasing")),
            StripeInvoiceTask.period_end > span.start,
            StripeInvoiceTask.period_start < span.end,
            *((StripeInvoice.account_id == span.account_id,) if span.account_id else ()),
        )
        .order_by(StripeInvoiceTask.created_at)
    )
    for task, invoice in tasks:
        found.append(
            _of_invoice(
                invoice,
                severity=Severity.WRONG if task.alarmed_at else Severity.WAITING,
                cause="draft_held" if task.held_at else "draft_waits",
                detail=task.reason or "the draft is being prepared",
                expected=0,
                found=invoice.total_minor,
            )
        )
    return found


def _of_invoice(
    invoice: StripeInvoice, *, severity: Severity, cause: str, detail: str, expected: int, found: int
) -> Difference:
    return Difference(
        link=Link.STRIPE_INVOICES,
        severity=severity,
        account_id=invoice.account_id,
        subscription_id=invoice.subscription_id,
        start=invoice.period_start,
        end=invoice.period_end,
        unit=invoice.currency,
        expected=expected,
        found=found,
        cause=cause,
        detail=detail,
    )
