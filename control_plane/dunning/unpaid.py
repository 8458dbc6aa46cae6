"""What of a subscription is unpaid: our own invoices, or Stripe's as last read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.payments.model import PAYABLE, left_minor
from control_plane.stripe_sync.events.tables import StripeEvent
from control_plane.stripe_sync.invoices.tables import StripeInvoice
from control_plane.subscriptions.tables import Subscription

ACTION_REQUIRED = "invoice.payment_action_required"
MAX_NAMED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaidInvoice:
    """`pay_url`: Stripe's page of the invoice. `asks_customer`: the bank wants the payment confirmed."""

    id: str
    number: str
    amount_minor: int
    currency: str
    due_at: datetime | None
    pay_url: str | None = None
    next_attempt_at: datetime | None = None
    asks_customer: bool = False


async def unpaid_invoices(
    session: AsyncSession, subscription: Subscription, *, now: datetime
) -> list[UnpaidInvoice]:
    """Return what is unpaid, oldest first; of own invoices only those that are due."""
    if subscription.billed_by == "stripe":
        return await _at_stripe(session, subscription.id)
    statement = (
        select(Invoice)
        .where(
            Invoice.subscription_id == subscription.id, Invoice.status.in_(sorted(PAYABLE)), Invoice.due_at <= now
        )
        .order_by(Invoice.due_at, Invoice.id)
        .limit(MAX_NAMED)
    )
    return [
        UnpaidInvoice(
            id=invoice.id,
            number=invoice.number or "",
            amount_minor=left_minor(invoice),
            currency=invoice.currency,
            due_at=invoice.due_at,
        )
        for invoice in await session.scalars(statement)
    ]


async def _at_stripe(session: AsyncSession, subscription_id: str) -> list[UnpaidInvoice]:
    asked = exists().where(StripeEvent.object_id == StripeInvoice.id, StripeEvent.type == ACTION_REQUIRED)
    statement = (
        select(StripeInvoice, asked)
        .where(
            StripeInvoice.subscription_id == subscription_id,
            StripeInvoice.status == "open",
            StripeInvoice.amount_remaining_minor > 0,
        )
        .order_by(StripeInvoice.created_at, StripeInvoice.id)
        .limit(MAX_NAMED)
    )
    return [
        UnpaidInvoice(
            id=invoice.id,
            number=invoice.number or "",
            amount_minor=invoice.amount_remaining_minor,
            currency=invoice.currency,
            due_at=invoice.due_at,
            pay_url=invoice.hosted_url,
            next_attempt_at=invoice.next_attempt_at,
            asks_customer=bool(asks),
        )
        for invoice, asks in await session.execute(statement)
    ]


def mail_values(unpaid: Sequence[UnpaidInvoice], *, now: datetime) -> dict[str, Any]:
    """Return what mails say of unpaid invoices, as their templates take it. The link is the newest invoice's."""
    attempts = [bill.next_attempt_at for bill in unpaid if bill.next_attempt_at and bill.next_attempt_at > now]
    links = [bill.pay_url for bill in unpaid if bill.pay_url]
    currencies = {bill.currency for bill in unpaid}
    total = sum(bill.amount_minor for bill in unpaid)
    return {
        "invoices": [
            {"number": bill.number, "amount": {"amount_minor": bill.amount_minor, "currency": bill.currency}}
            for bill in unpaid
        ],
        "total": {"amount_minor": total, "currency": currencies.pop()} if len(currencies) == 1 else None,
        "pay_url": links[-1] if links else None,
        "next_attempt": min(attempts).isoformat() if attempts else None,
    }
