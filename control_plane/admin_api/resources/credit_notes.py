"""Credit notes."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import PageAnswer, PageQuery, page_answer
from control_plane.admin_api.invoice_answers import CreditNoteAnswer, credit_note_answer
from control_plane.admin_api.invoice_forms import CreditNoteId, CreditNotesQuery, InvoiceId, IssueCreditNote
from control_plane.admin_api.pages.rendering import page_response
from control_plane.admin_api.resources.billed_invoices import HTML_ANSWER, PDF_ANSWER, pdf_response
from control_plane.admin_api.services import Given, Now
from control_plane.billing.credit_notes import operations, queries
from control_plane.billing.credit_notes.model import CreditedLine
from control_plane.billing.credits.model import read_amount
from control_plane.billing.documents.html import render_html
from control_plane.billing.documents.reading import document_of_credit_note
from control_plane.billing.invoices.queries import invoice as invoice_by_id

router = APIRouter(tags=["invoices"])


@router.post("/invoices/{invoice_id}/credit-notes", status_code=201)
@allows(Role.FINANCE)
async def issue_credit_note(
    invoice_id: InvoiceId, body: IssueCreditNote, session: Database, caller: Authenticated, now: Now
) -> CreditNoteAnswer:
    """Take back some or all of a final invoice, with its share of discount and tax.

    First it takes off what is still due; the rest goes where `surplus` says. The same key again: the same note.
    """
    currency = (await invoice_by_id(session, invoice_id)).currency
    request = operations.CreditRequest(
        reason=body.reason,
        note=body.note,
        lines=tuple(
            CreditedLine(
                position=line.position,
                amount_minor=None
                if line.amount is None
                else read_amount(line.amount, currency, field=f"lines[{number}].amount"),
            )
            for number, line in enumerate(body.lines)
        ),
        amount_minor=None if body.amount is None else read_amount(body.amount, currency),
        dispute_id=body.dispute_id,
        surplus=body.surplus,
    )
    note = await operations.issue_credit_note(
        session,
        invoice_id=invoice_id,
        request=request,
        idempotency_key=body.idempotency_key,
        actor=caller.actor,
        now=now,
    )
    return credit_note_answer(note)


@router.get("/invoices/{invoice_id}/credit-notes")
async def list_invoice_credit_notes(
    invoice_id: InvoiceId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[CreditNoteAnswer]:
    """List the credit notes of an invoice, newest first."""
    await invoice_by_id(session, invoice_id)
    page = await queries.credit_notes(session, invoice_id=invoice_id, cursor=query.cursor, limit=query.limit)
    return page_answer(page, credit_note_answer)


@router.get("/credit-notes")
async def list_credit_notes(
    session: Database, query: Annotated[CreditNotesQuery, Query()]
) -> PageAnswer[CreditNoteAnswer]:
    """List credit notes, newest first."""
    page = await queries.credit_notes(session, account_id=query.account_id, cursor=query.cursor, limit=query.limit)
    return page_answer(page, credit_note_answer)


@router.get("/credit-notes/{credit_note_id}.html", response_class=Response, responses=HTML_ANSWER)
async def get_credit_note_html(credit_note_id: CreditNoteId, session: Database) -> HTMLResponse:
    """Return a credit note as a page that prints on A4."""
    return page_response(render_html(await document_of_credit_note(session, credit_note_id)))


@router.get("/credit-notes/{credit_note_id}.pdf", response_class=Response, responses=PDF_ANSWER)
async def get_credit_note_pdf(credit_note_id: CreditNoteId, session: Database, services: Given) -> Response:
    """Return a credit note as a file."""
    document = await document_of_credit_note(session, credit_note_id)
    from control_plane.billing.documents.pdf import render_pdf  # half a second: not at every start

    content = await asyncio.to_thread(render_pdf, document, fonts=services.pdf_fonts)
    return pdf_response(content, document.number)


@router.get("/credit-notes/{credit_note_id}")
async def get_credit_note(credit_note_id: CreditNoteId, session: Database) -> CreditNoteAnswer:
    """Return one credit note."""
    return credit_note_answer(await queries.credit_note(session, credit_note_id))
