"""Reads of credit notes."""

from collections.abc import Sequence
from fractions import Fraction

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.billing.credit_notes.model import Billed, BilledLine, Credited
from control_plane.billing.credit_notes.tables import CreditNote, CreditNoteLine
from control_plane.billing.discounts.stacking import spread
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.payments.tables import InvoicePayment
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of


async def credit_note(session: AsyncSession, credit_note_id: str) -> CreditNote:
    """Return a credit note with its lines.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(CreditNote).where(CreditNote.id == credit_note_id).options(selectinload(CreditNote.lines))
    found = await session.scalar(statement)
    if found is None:
        raise NotFoundError("credit_note", credit_note_id)
    return found


async def notes_of_invoice(session: AsyncSession, invoice_id: str) -> Sequence[CreditNote]:
    """Return the credit notes of an invoice, without their lines, oldest first."""
    statement = select(CreditNote).where(CreditNote.invoice_id == invoice_id).order_by(CreditNote.id)
    return (await session.scalars(statement)).all()


async def credit_notes(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    invoice_id: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CreditNote]:
    """Return one page of credit notes with their lines, newest first.

    Raises:
        ValidationFailedError: `cursor` is none of this list.
    """
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(CreditNote).options(selectinload(CreditNote.lines))
    if account_id is not None:
        statement = statement.where(CreditNote.account_id == account_id)
    if invoice_id is not None:
        statement = statement.where(CreditNote.invoice_id == invoice_id)
    if cursor is not None:
        statement = statement.where(CreditNote.id < decode_cursor(cursor, str)[0])
    rows = (await session.scalars(statement.order_by(CreditNote.id.desc()).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.id,))


async def billed_by(session: AsyncSession, invoice: Invoice) -> Billed:
    """Return what an invoice, loaded with its lines, says, and what credit notes have taken back of it."""
    notes = await notes_of_invoice(session, invoice.id)
    of_line = (
        select(CreditNoteLine.invoice_line_id, func.sum(CreditNoteLine.amount_minor))
        .join(CreditNote, CreditNote.id == CreditNoteLine.credit_note_id)
        .where(CreditNote.invoice_id == invoice.id, CreditNoteLine.invoice_line_id.is_not(None))
        .group_by(CreditNoteLine.invoice_line_id)
    )
    discounts = _line_discounts(invoice)
    by_line = {line_id: int(amount) for line_id, amount in await session.execute(of_line)}
    return Billed(
        number=invoice.number or "",
        currency=invoice.currency,
        lines=tuple(
            BilledLine(
                position=line.position,
                description=line.description,
                amount_minor=line.amount_minor,
                discount_minor=discounts[line.position],
                credited_minor=by_line.get(line.id, 0),
            )
            for line in invoice.lines
        ),
        subtotal_minor=invoice.subtotal_minor,
        discount_minor=invoice.discount_minor,
        taxes=invoice.taxes,
        total_minor=invoice.total_minor,
        credited=Credited(
            of_lines_minor=sum(by_line.values()),
            taxes_minor=tuple(
                sum(note.taxes[number]["amount_minor"] for note in notes) for number in range(len(invoice.taxes))
            ),
            net_minor=sum(note.subtotal_minor - note.discount_minor for note in notes),
            total_minor=sum(note.total_minor for note in notes),
        ),
    )


def _line_discounts(invoice: Invoice) -> dict[int, int]:
    """Return what discounts took off each line, by position."""
    noted = {line.position: line.details.get("discount_minor", 0) for line in invoice.lines}
    if sum(noted.values()) == invoice.discount_minor or invoice.subtotal_minor <= 0:
        return noted
    # made before lines kept their discounts: in proportion
    part = Fraction(invoice.discount_minor, invoice.subtotal_minor)
    return spread(invoice.discount_minor, {line.position: line.amount_minor * part for line in invoice.lines})


async def paid_out_minor(session: AsyncSession, invoice_id: str) -> int:
    """Return what was paid back of an invoice."""
    statement = select(func.coalesce(func.sum(InvoicePayment.amount_minor), 0)).where(
        InvoicePayment.invoice_id == invoice_id, InvoicePayment.kind == "refund"
    )
    return int(await session.scalar(statement) or 0)
