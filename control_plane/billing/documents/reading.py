"""Documents from the database. Reads only."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.credit_notes.queries import credit_note, notes_of_invoice
from control_plane.billing.documents.composing import credit_note_document, invoice_document
from control_plane.billing.documents.model import Document
from control_plane.billing.invoices.queries import invoice as invoice_by_id
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.profiles.model import Seller
from control_plane.billing.profiles.queries import buyers
from control_plane.subscriptions.tables import Subscription


async def document_of_invoice(
    session: AsyncSession, *, invoice_id: str, seller: Seller, now: datetime
) -> Document:
    """Return what an invoice says; a draft is from `seller`, to the account's billing profile as it is now.

    Raises:
        NotFoundError: there is no such invoice.
    """
    invoice = await invoice_by_id(session, invoice_id)
    return invoice_document(
        invoice,
        seller=seller.as_dict(),
        buyer=(await buyers(session, {invoice.account_id}))[invoice.account_id],
        credit_notes=await notes_of_invoice(session, invoice_id),
        time_zone=await _time_zone(session, invoice),
        now=now,
    )


async def document_of_credit_note(session: AsyncSession, credit_note_id: str) -> Document:
    """Return what a credit note says.

    Raises:
        NotFoundError: there is no such credit note.
    """
    note = await credit_note(session, credit_note_id)
    invoice = await invoice_by_id(session, note.invoice_id)
    return credit_note_document(note, invoice, time_zone=await _time_zone(session, invoice))


async def _time_zone(session: AsyncSession, invoice: Invoice) -> str:
    """Return the zone by whose clock the invoice's periods were cut, else the account's."""
    statement = (
        select(func.coalesce(Subscription.time_zone, Account.time_zone))
        .select_from(Account)
        .outerjoin(Subscription, Subscription.id == invoice.subscription_id)
        .where(Account.id == invoice.account_id)
    )
    return str(await session.scalar(statement))
