"""What every change of a final invoice shares: the locks, the status that follows, the audit row."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits.ledger import lock_accounts
from control_plane.billing.discounts.referrals import rewarded_with
from control_plane.billing.invoices.queries import locked_invoice
from control_plane.billing.invoices.tables import BilledPeriod, Invoice
from control_plane.billing.payments.model import PAYABLE, left_minor
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.outbox import Topic, enqueue


async def lock_invoice(session: AsyncSession, invoice_id: str, *, for_money: bool = False) -> Invoice:
    """Lock an invoice's account, then the invoice, until the transaction ends; returns it with its lines.

    The account comes first, as in every operation: what follows may change a subscription of it. `for_money`: it
    may become paid with money, so whoever brought the account may be rewarded, and is locked with it.

    Raises:
        NotFoundError: there is no such invoice.
    """
    account_id = await session.scalar(select(Invoice.account_id).where(Invoice.id == invoice_id))
    if account_id is None:
        raise NotFoundError("invoice", invoice_id)
    await lock_accounts(session, await rewarded_with(session, account_id) if for_money else {account_id})
    return await locked_invoice(session, invoice_id)


def settle(invoice: Invoice, *, now: datetime) -> bool:
    """Make an invoice of which nothing is left paid; says whether it became so."""
    if invoice.status not in PAYABLE or left_minor(invoice) > 0:
        return False
    invoice.status, invoice.paid_at = "paid", now
    return True


def facts(invoice: Invoice) -> dict[str, Any]:
    """Return what the audit log keeps of an invoice."""
    return {
        "number": invoice.number,
        "status": invoice.status,
        "currency": invoice.currency,
        "amount_due_minor": invoice.amount_due_minor,
        "amount_paid_minor": invoice.amount_paid_minor,
        "credited_minor": invoice.credited_minor,
    }


async def record(
    session: AsyncSession,
    invoice: Invoice,
    *,
    action: str,
    before: dict[str, Any],
    details: dict[str, Any],
    actor: str,
    now: datetime,
) -> None:
    """Write the audit row of a change of an invoice."""
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="invoice",
        entity_id=invoice.id,
        before=before,
        after={**facts(invoice), **details},
        now=now,
    )


async def note_not_billed(
    session: AsyncSession, invoice: Invoice, *, positions: Collection[int | None] = (), now: datetime
) -> None:
    """Have the periods of an invoice's lines (all, or those at `positions`) looked at when the next one is made.

    What they charged counts as not billed any more, so there may be something to bill.
    """
    periods = {
        (line.subscription_id, line.period_start)
        for line in invoice.lines
        if line.subscription_id is not None and (not positions or line.position in positions)
    }
    for subscription_id, period_start in sorted(periods):
        await session.execute(
            update(BilledPeriod)
            .where(BilledPeriod.subscription_id == subscription_id, BilledPeriod.period_start == period_start)
            .values(changed_at=now)
        )
    for subscription_id in sorted({subscription_id for subscription_id, _ in periods}):
        await enqueue(session, topic=Topic.SUBSCRIPTION_CHANGED, entity_id=subscription_id, now=now)
