"""Paying an invoice, making it void, giving it up. Nothing here commits."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.entries import NewEntry
from control_plane.billing.balance.operations import add_to_balance
from control_plane.billing.credits.applying import return_credits
from control_plane.billing.discounts.applying import forget_discounts
from control_plane.billing.discounts.referrals import reward_first_payment
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.payments.model import (
    MAX_METHOD,
    MAX_REASON,
    MAX_REFERENCE,
    PAYABLE,
    InvoiceNotVoidableError,
    InvoiceStepRefusedError,
    PaymentExceedsDueError,
    PaymentReferenceTakenError,
    left_minor,
)
from control_plane.billing.payments.overdue import catch_up
from control_plane.billing.payments.records import facts, lock_invoice, note_not_billed, record, settle
from control_plane.billing.payments.tables import InvoicePayment
from control_plane.billing.prepaid.purchases import grant_paid_credits
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id

# dates of payments come from places where it is tomorrow already
AHEAD = timedelta(days=1)


async def pay_invoice(
    session: AsyncSession,
    *,
    invoice_id: str,
    amount_minor: int | None = None,
    paid_on: date,
    reference: str,
    method: str = "",
    surplus_to_balance: bool = False,
    actor: str,
    now: datetime,
) -> InvoicePayment:
    """Note that money came in for an invoice: a part of what is left, or all of it (None).

    The same reference again returns what was noted first and changes nothing. When nothing is left the invoice is
    paid, and a subscription that was past due for it is active again. With `surplus_to_balance`, what exceeds the
    amount left is added to the account's balance.

    Raises:
        NotFoundError, ValidationFailedError. InvoiceStepRefusedError: it is a draft, paid or void.
        PaymentExceedsDueError. PaymentReferenceTakenError: the reference stands for another amount.
    """
    check_payment(amount_minor=amount_minor, paid_on=paid_on, reference=reference, method=method, now=now)
    invoice = await lock_invoice(session, invoice_id, for_money=True)
    noted = await noted_under(session, invoice, kind="payment", reference=reference, amount_minor=amount_minor)
    if noted is not None:
        return noted
    if invoice.status not in PAYABLE:
        raise InvoiceStepRefusedError(invoice_id, invoice.status, "paid")
    left = left_minor(invoice)
    amount_minor = left if amount_minor is None else amount_minor
    surplus_minor = max(0, amount_minor - left)
    if surplus_minor and not surplus_to_balance:
        raise PaymentExceedsDueError(left, invoice.currency)
    before = facts(invoice)
    payment = InvoicePayment(
        id=new_id("pay", now),
        invoice_id=invoice.id,
        account_id=invoice.account_id,
        kind="payment",
        currency=invoice.currency,
        amount_minor=amount_minor,
        surplus_minor=surplus_minor,
        paid_on=paid_on,
        reference=reference,
        method=method,
        author=actor,
        created_at=now,
    )
    session.add(payment)
    invoice.amount_paid_minor += amount_minor - surplus_minor
    paid = settle(invoice, now=now)
    details = {"payment_id": payment.id, "amount_minor": amount_minor, "reference": reference}
    await record(session, invoice, action="invoice.paid", before=before, details=details, actor=actor, now=now)
    if surplus_minor:
        await _keep_surplus(session, payment, actor=actor, now=now)
    if paid:
        await grant_paid_credits(session, invoice=invoice, now=now)
        await reward_first_payment(session, invoice=invoice, now=now)
        await catch_up_for(session, invoice, actor=actor, now=now)
    return payment


async def void_invoice(
    session: AsyncSession, *, invoice_id: str, reason: str, actor: str, now: datetime
) -> Invoice:
    """Make an open invoice void: nobody owes it, and what it billed counts as not billed.

    So what its lines charged is billed again with the subscription's next invoice, if it is still due. What
    prepaid credits and the balance had paid of it goes back to them. Repeating changes nothing.

    Raises:
        NotFoundError, ValidationFailedError: no reason. InvoiceStepRefusedError: it is not open.
        InvoiceNotVoidableError: something was paid in money, or credited.
    """
    _check_reason(reason)
    invoice = await lock_invoice(session, invoice_id)
    if invoice.status == "void":
        return invoice
    if invoice.status != "open":
        raise InvoiceStepRefusedError(invoice_id, invoice.status, "made void")
    if invoice.amount_paid_minor or invoice.credited_minor:
        raise InvoiceNotVoidableError(invoice_id)
    before = facts(invoice)
    invoice.status, invoice.voided_at = "void", now
    await record(
        session, invoice, action="invoice.voided", before=before, details={"reason": reason}, actor=actor, now=now
    )
    await note_not_billed(session, invoice, now=now)
    await forget_discounts(session, [invoice.id])
    await return_credits(session, [invoice.id], now=now)
    if invoice.balance_applied_minor:
        back = NewEntry(
            account_id=invoice.account_id,
            currency=invoice.currency,
            kind="void",
            amount_minor=invoice.balance_applied_minor,
            invoice_id=invoice.id,
            reason=reason,
            author=actor,
        )
        await add_to_balance(session, back, now=now)
    await catch_up_for(session, invoice, actor=actor, now=now)
    return invoice


async def give_up_invoice(
    session: AsyncSession, *, invoice_id: str, reason: str, actor: str, now: datetime
) -> Invoice:
    """Call an open invoice uncollectible: nobody expects the money any more. Repeating changes nothing.

    It still counts as billed and as unpaid, and can still be paid.

    Raises:
        NotFoundError, ValidationFailedError: no reason. InvoiceStepRefusedError: it is not open.
    """
    _check_reason(reason)
    invoice = await lock_invoice(session, invoice_id)
    if invoice.status == "uncollectible":
        return invoice
    if invoice.status != "open":
        raise InvoiceStepRefusedError(invoice_id, invoice.status, "called uncollectible")
    before = facts(invoice)
    invoice.status = "uncollectible"
    details = {"reason": reason}
    await record(
        session, invoice, action="invoice.uncollectible", before=before, details=details, actor=actor, now=now
    )
    return invoice


async def catch_up_for(session: AsyncSession, invoice: Invoice, *, actor: str, now: datetime) -> None:
    """Let the subscription of an invoice that is owed no longer be active again, if nothing else is overdue."""
    if invoice.subscription_id is not None:
        await session.flush()
        await catch_up(session, subscription_id=invoice.subscription_id, actor=actor, now=now)


async def payments_of_invoice(session: AsyncSession, invoice_id: str) -> Sequence[InvoicePayment]:
    """Return payments and refunds of an invoice, oldest first."""
    statement = select(InvoicePayment).where(InvoicePayment.invoice_id == invoice_id).order_by(InvoicePayment.id)
    return (await session.scalars(statement)).all()


async def noted_under(
    session: AsyncSession, invoice: Invoice, *, kind: str, reference: str, amount_minor: int | None
) -> InvoicePayment | None:
    """Return what was noted under a reference before; None where nothing was.

    Raises:
        PaymentReferenceTakenError: it was another amount.
    """
    noted = await session.scalar(
        select(InvoicePayment).where(
            InvoicePayment.invoice_id == invoice.id,
            InvoicePayment.kind == kind,
            InvoicePayment.reference == reference,
        )
    )
    if noted is not None and amount_minor not in {None, noted.amount_minor}:
        raise PaymentReferenceTakenError(reference, noted.amount_minor, noted.currency)
    return noted


async def _keep_surplus(session: AsyncSession, payment: InvoicePayment, *, actor: str, now: datetime) -> None:
    entry = NewEntry(
        account_id=payment.account_id,
        currency=payment.currency,
        kind="surplus",
        amount_minor=payment.surplus_minor,
        invoice_id=payment.invoice_id,
        reason=f"payment {payment.reference}",
        author=actor,
    )
    await add_to_balance(session, entry, now=now)


def check_payment(*, amount_minor: int | None, paid_on: date, reference: str, method: str, now: datetime) -> None:
    """Raise ValidationFailedError where a payment or refund cannot be noted so."""
    if amount_minor is not None and amount_minor <= 0:
        raise ValidationFailedError("amount_minor", "must be above 0")
    if paid_on > (now + AHEAD).date():
        raise ValidationFailedError("paid_on", "must not be in the future")
    if not reference.strip() or len(reference) > MAX_REFERENCE or not reference.isprintable():
        raise ValidationFailedError("reference", f"must be 1 to {MAX_REFERENCE} printable characters")
    if len(method) > MAX_METHOD or not method.isprintable():
        raise ValidationFailedError("method", f"must be at most {MAX_METHOD} printable characters")


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > MAX_REASON:
        raise ValidationFailedError("reason", f"must be 1 to {MAX_REASON} characters")
