"""What happens to a final invoice: payments, refunds, void, given up."""

from fastapi import APIRouter

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.invoice_answers import InvoiceDetailAnswer
from control_plane.admin_api.invoice_forms import GiveReason, InvoiceId, NoteRefund, PayFromBalance, PayInvoice
from control_plane.admin_api.resources.billed_invoices import detail
from control_plane.admin_api.services import Now
from control_plane.billing.credit_notes.refunds import note_refund
from control_plane.billing.credits.model import read_amount
from control_plane.billing.invoices import queries
from control_plane.billing.payments import operations
from control_plane.billing.payments.from_balance import pay_from_balance

router = APIRouter(prefix="/invoices/{invoice_id}", tags=["invoices"])


@router.post("/pay")
@allows(Role.FINANCE)
async def pay_invoice(
    invoice_id: InvoiceId, body: PayInvoice, session: Database, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Note that money came in, all or a part. The same reference again counts once.

    When nothing is left the invoice is paid, and a subscription that was past due for it is active again.
    """
    invoice = await queries.invoice(session, invoice_id)
    await operations.pay_invoice(
        session,
        invoice_id=invoice_id,
        amount_minor=None if body.amount is None else read_amount(body.amount, invoice.currency),
        paid_on=body.paid_on or now.date(),
        reference=body.reference,
        method=body.method,
        surplus_to_balance=body.surplus_to_balance,
        actor=caller.actor,
        now=now,
    )
    return await detail(session, invoice, now)


@router.post("/pay-from-balance")
@allows(Role.FINANCE)
async def pay_invoice_from_balance(
    invoice_id: InvoiceId, body: PayFromBalance, session: Database, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Pay an open invoice from what came into the account's balance since. The same reference counts once."""
    invoice = await queries.invoice(session, invoice_id)
    await pay_from_balance(
        session,
        invoice_id=invoice_id,
        amount_minor=None if body.amount is None else read_amount(body.amount, invoice.currency),
        reference=body.reference,
        actor=caller.actor,
        now=now,
    )
    return await detail(session, invoice, now)


@router.post("/refunds")
@allows(Role.FINANCE)
async def note_invoice_refund(
    invoice_id: InvoiceId, body: NoteRefund, session: Database, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Note that money was paid back which credit notes said would be. The same reference again counts once."""
    invoice = await queries.invoice(session, invoice_id)
    await note_refund(
        session,
        invoice_id=invoice_id,
        amount_minor=read_amount(body.amount, invoice.currency),
        paid_on=body.paid_on or now.date(),
        reference=body.reference,
        method=body.method,
        actor=caller.actor,
        now=now,
    )
    return await detail(session, invoice, now)


@router.post("/void")
@allows(Role.FINANCE)
async def void_invoice(
    invoice_id: InvoiceId, body: GiveReason, session: Database, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Make an open invoice void, of which nothing was paid. What it billed counts as not billed. Repeatable.

    What is still due of it is on the subscription's next invoice; to waive it, issue a credit note instead.
    """
    invoice = await operations.void_invoice(
        session, invoice_id=invoice_id, reason=body.reason, actor=caller.actor, now=now
    )
    return await detail(session, invoice, now)


@router.post("/uncollectible")
@allows(Role.FINANCE)
async def give_up_invoice(
    invoice_id: InvoiceId, body: GiveReason, session: Database, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Say that nobody expects the money of an open invoice any more. It can still be paid. Repeatable."""
    invoice = await operations.give_up_invoice(
        session, invoice_id=invoice_id, reason=body.reason, actor=caller.actor, now=now
    )
    return await detail(session, invoice, now)
