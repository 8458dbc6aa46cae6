"""Invoices as closing leaves them: final, with lines, taxes and discounts of the test's choice."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.numbers import INVOICES, take_numbers
from control_plane.billing.invoices.queries import invoice as invoice_by_id
from control_plane.billing.invoices.tables import Invoice, InvoiceLine
from control_plane.foundation.ids import new_id

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
DEC_1 = datetime(2026, 12, 1, tzinfo=UTC)


async def a_final_invoice(
    session: AsyncSession,
    account_id: str,
    *,
    amounts: Sequence[int] = (4_900,),
    discount_minor: int = 0,
    taxes: Sequence[dict[str, Any]] = (),
    credits_applied_minor: int = 0,
    balance_applied_minor: int = 0,
    subscription_id: str | None = None,
    currency: str = "USD",
    due_at: datetime | None = None,
    now: datetime = DEC_1,
    **facts: Any,
) -> Invoice:
    """Write an open invoice (paid, where nothing is due) with a line of each amount, and load it."""
    subtotal = sum(amounts)
    tax_minor = sum(tax["amount_minor"] for tax in taxes)
    total = subtotal - discount_minor + tax_minor
    due = total - credits_applied_minor - balance_applied_minor
    invoice = Invoice(
        id=new_id("inv", now),
        account_id=account_id,
        subscription_id=subscription_id,
        reason="period" if subscription_id else "manual",
        currency=currency,
        period_start=NOV_1,
        period_end=DEC_1,
        subtotal_minor=subtotal,
        discount_minor=discount_minor,
        tax_minor=tax_minor,
        total_minor=total,
        credits_applied_minor=credits_applied_minor,
        balance_applied_minor=balance_applied_minor,
        amount_due_minor=due,
        taxes=list(taxes),
        created_at=now,
        lines=[
            a_line(position, amount, subscription_id=subscription_id, now=now)
            for position, amount in enumerate(amounts, start=1)
        ],
    )
    for name, value in facts.items():
        setattr(invoice, name, value)
    session.add(invoice)
    await session.flush()
    (invoice.number,) = await take_numbers(session, series=INVOICES, count=1)
    invoice.status = "open" if due else "paid"
    invoice.finalised_at = now
    invoice.paid_at = None if due else now
    invoice.due_at = due_at or now + timedelta(days=14)
    await session.flush()
    return await invoice_by_id(session, invoice.id)


def a_line(
    position: int, amount_minor: int, *, subscription_id: str | None = None, now: datetime = DEC_1, **facts: Any
) -> InvoiceLine:
    """Return a line that is not yet written."""
    given = {
        "kind": "usage" if subscription_id else "manual",
        "period_start": NOV_1,
        "period_end": DEC_1,
        "charge_key": f"key-{position}",
        "description": f"Line {position}",
        "formula": "",
        "tiers": [],
        "details": {},
        **facts,
    }
    return InvoiceLine(
        id=new_id("inl", now),
        position=position,
        subscription_id=subscription_id,
        exact_amount=Decimal(amount_minor) / 100,
        amount_minor=amount_minor,
        **given,
    )
