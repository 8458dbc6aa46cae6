"""Noting that what credit notes left to be paid back was paid back. Nothing here commits."""

from datetime import date, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credit_notes.queries import notes_of_invoice, paid_out_minor
from control_plane.billing.payments.operations import check_payment, noted_under
from control_plane.billing.payments.records import facts, lock_invoice, record
from control_plane.billing.payments.tables import InvoicePayment
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.ids import new_id
from control_plane.foundation.money import Money


class RefundExceedsCreditError(ConflictError):
    """More would be paid out than credit notes said."""

    def __init__(self, left_minor: int, currency: str) -> None:
        super().__init__(
            "refund_exceeds_credit",
            f"Credit notes of this invoice leave {Money(left_minor, currency)} to be paid out: issue one first.",
        )


async def note_refund(
    session: AsyncSession,
    *,
    invoice_id: str,
    amount_minor: int,
    paid_on: date,
    reference: str,
    method: str = "",
    actor: str,
    now: datetime,
) -> InvoicePayment:
    """Note that money was paid back that credit notes of an invoice said would be. The same reference again: once.

    Raises:
        NotFoundError, ValidationFailedError. RefundExceedsCreditError: no credit note said so much.
        PaymentReferenceTakenError: the reference stands for another refund.
    """
    check_payment(amount_minor=amount_minor, paid_on=paid_on, reference=reference, method=method, now=now)
    invoice = await lock_invoice(session, invoice_id)
    noted = await noted_under(session, invoice, kind="refund", reference=reference, amount_minor=amount_minor)
    if noted is not None:
        return noted
    promised = sum(note.to_outside_minor for note in await notes_of_invoice(session, invoice_id))
    left = promised - await paid_out_minor(session, invoice_id)
    if amount_minor > left:
        raise RefundExceedsCreditError(left, invoice.currency)
    refund = InvoicePayment(
        id=new_id("pay", now),
        invoice_id=invoice.id,
        account_id=invoice.account_id,
        kind="refund",
        currency=invoice.currency,
        amount_minor=amount_minor,
        surplus_minor=0,
        paid_on=paid_on,
        reference=reference,
        method=method,
        author=actor,
        created_at=now,
    )
    session.add(refund)
    details = {"payment_id": refund.id, "amount_minor": amount_minor, "reference": reference}
    before = facts(invoice)
    await record(session, invoice, action="invoice.refunded", before=before, details=details, actor=actor, now=now)
    return refund
