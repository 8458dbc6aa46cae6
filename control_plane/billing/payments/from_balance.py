"""Paying an open invoice from the account's balance. Nothing here commits.

When an invoice is finalised the balance pays what it can by itself; this is for what came into the balance later.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.entries import BalanceTooLowError, NewEntry, add_entries, lock_balances
from control_plane.billing.discounts.referrals import reward_first_payment
from control_plane.billing.payments.model import (
    PAYABLE,
    InvoiceStepRefusedError,
    PaymentExceedsDueError,
    left_minor,
)
from control_plane.billing.payments.operations import catch_up_for, check_payment, noted_under
from control_plane.billing.payments.records import facts, lock_invoice, record, settle
from control_plane.billing.payments.tables import InvoicePayment
from control_plane.billing.prepaid.purchases import grant_paid_credits
from control_plane.foundation.ids import new_id

METHOD = "account balance"


async def pay_from_balance(
    session: AsyncSession,
    *,
    invoice_id: str,
    amount_minor: int | None = None,
    reference: str,
    actor: str,
    now: datetime,
) -> InvoicePayment:
    """Pay an invoice from the account's balance: an amount, or all that is left as far as the balance goes (None).

    The same reference again returns what was noted first and changes nothing. Whoever brought the account is only
    rewarded if some of the invoice was paid in money.

    Raises:
        NotFoundError, ValidationFailedError. InvoiceStepRefusedError: it is a draft, paid or void.
        PaymentExceedsDueError. BalanceTooLowError: the balance holds less, or nothing.
        PaymentReferenceTakenError: the reference stands for another amount.
    """
    check_payment(amount_minor=amount_minor, paid_on=now.date(), reference=reference, method=METHOD, now=now)
    invoice = await lock_invoice(session, invoice_id, for_money=True)
    noted = await noted_under(session, invoice, kind="balance", reference=reference, amount_minor=amount_minor)
    if noted is not None:
        return noted
    if invoice.status not in PAYABLE:
        raise InvoiceStepRefusedError(invoice_id, invoice.status, "paid")
    of, left = (invoice.account_id, invoice.currency), left_minor(invoice)
    balances = await lock_balances(session, {of}, create={of})
    amount_minor = min(left, balances[of]) if amount_minor is None else amount_minor
    if amount_minor > left:
        raise PaymentExceedsDueError(left, invoice.currency)
    if not amount_minor:
        raise BalanceTooLowError(balances[of], invoice.currency)
    before = facts(invoice)
    entry = NewEntry(
        account_id=invoice.account_id,
        currency=invoice.currency,
        kind="payment",
        amount_minor=-amount_minor,
        invoice_id=invoice.id,
        reason=f"payment {reference}",
        author=actor,
    )
    await add_entries(session, [entry], balances, now=now)
    payment = InvoicePayment(
        id=new_id("pay", now),
        invoice_id=invoice.id,
        account_id=invoice.account_id,
        kind="balance",
        currency=invoice.currency,
        amount_minor=amount_minor,
        surplus_minor=0,
        paid_on=now.date(),
        reference=reference,
        method=METHOD,
        author=actor,
        created_at=now,
    )
    session.add(payment)
    invoice.amount_paid_minor += amount_minor
    paid = settle(invoice, now=now)
    details = {"payment_id": payment.id, "amount_minor": amount_minor, "reference": reference}
    await record(
        session, invoice, action="invoice.paid_from_balance", before=before, details=details, actor=actor, now=now
    )
    if paid:
        await grant_paid_credits(session, invoice=invoice, now=now)
        if await _money_came_in(session, invoice.id):
            await reward_first_payment(session, invoice=invoice, now=now)
        await catch_up_for(session, invoice, actor=actor, now=now)
    return payment


async def _money_came_in(session: AsyncSession, invoice_id: str) -> bool:
    statement = select(InvoicePayment.id).where(
        InvoicePayment.invoice_id == invoice_id, InvoicePayment.kind == "payment"
    )
    return (await session.scalars(statement.limit(1))).first() is not None
