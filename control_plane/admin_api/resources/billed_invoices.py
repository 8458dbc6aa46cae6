"""Invoices: lists, details, documents, and drafts by hand."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account as account_by_id
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, PageAnswer, page_answer
from control_plane.admin_api.invoice_answers import (
    InvoiceAnswer,
    InvoiceDetailAnswer,
    detail_answer,
    invoice_answer,
)
from control_plane.admin_api.invoice_forms import (
    AddLines,
    CreateInvoice,
    InvoiceId,
    InvoicesOfAccountQuery,
    InvoicesQuery,
    ManualLineBody,
)
from control_plane.admin_api.pages.rendering import page_response
from control_plane.admin_api.services import Given, Now
from control_plane.billing.credit_notes.queries import notes_of_invoice
from control_plane.billing.documents.html import render_html
from control_plane.billing.documents.reading import document_of_invoice
from control_plane.billing.invoices import queries
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.manual_invoices import operations
from control_plane.billing.manual_invoices.operations import ManualLine
from control_plane.billing.payments.operations import payments_of_invoice
from control_plane.foundation.pagination import Page

router = APIRouter(tags=["invoices"])
PDF = "application/pdf"
HTML_ANSWER: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
PDF_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {PDF: {"schema": {"type": "string", "format": "binary"}}}}
}
Position = Annotated[int, Path(ge=1, le=10**9, description="The line's place on the invoice.")]


@router.get("/invoices")
async def list_invoices(
    session: Database, query: Annotated[InvoicesQuery, Query()], now: Now
) -> PageAnswer[InvoiceAnswer]:
    """List invoices, drafts too, newest first."""
    page = await _page(session, query, account_id=query.account_id)
    return page_answer(page, lambda invoice: invoice_answer(invoice, now))


@router.get("/accounts/{account_id}/invoices")
async def list_account_invoices(
    account_id: AccountId, session: Database, query: Annotated[InvoicesOfAccountQuery, Query()], now: Now
) -> PageAnswer[InvoiceAnswer]:
    """List an account's invoices, drafts too, newest first."""
    await account_by_id(session, account_id)
    page = await _page(session, query, account_id=account_id)
    return page_answer(page, lambda invoice: invoice_answer(invoice, now))


@router.get("/invoices/{invoice_id}.html", response_class=Response, responses=HTML_ANSWER)
async def get_invoice_html(invoice_id: InvoiceId, session: Database, services: Given, now: Now) -> HTMLResponse:
    """Return an invoice as a page that prints on A4; drafts and void ones are marked."""
    document = await document_of_invoice(
        session, invoice_id=invoice_id, seller=services.invoice_terms.seller, now=now
    )
    return page_response(render_html(document))


@router.get("/invoices/{invoice_id}.pdf", response_class=Response, responses=PDF_ANSWER)
async def get_invoice_pdf(invoice_id: InvoiceId, session: Database, services: Given, now: Now) -> Response:
    """Return an invoice as a file; drafts and void ones are marked."""
    document = await document_of_invoice(
        session, invoice_id=invoice_id, seller=services.invoice_terms.seller, now=now
    )
    from control_plane.billing.documents.pdf import render_pdf  # half a second: not at every start

    content = await asyncio.to_thread(render_pdf, document, fonts=services.pdf_fonts)
    return pdf_response(content, document.number or invoice_id)


@router.get("/invoices/{invoice_id}")
async def get_invoice(invoice_id: InvoiceId, session: Database, now: Now) -> InvoiceDetailAnswer:
    """Return an invoice with its lines, and what became of it."""
    return await detail(session, await queries.invoice(session, invoice_id), now)


@router.post("/invoices", status_code=201)
@allows(Role.FINANCE)
async def create_invoice(
    body: CreateInvoice, session: Database, services: Given, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Make a draft by hand, in the account's currency. Nobody owes it until it is made final."""
    invoice = await operations.create_draft(
        session,
        account_id=body.account_id,
        lines=_lines(body.lines),
        note=body.note,
        seller_country=services.invoice_terms.seller.country,
        actor=caller.actor,
        now=now,
    )
    return await detail(session, invoice, now)


@router.post("/invoices/{invoice_id}/lines")
@allows(Role.FINANCE)
async def add_invoice_lines(
    invoice_id: InvoiceId, body: AddLines, *, session: Database, services: Given, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Add lines to a draft made by hand."""
    invoice = await operations.add_lines(
        session,
        invoice_id=invoice_id,
        lines=_lines(body.lines),
        seller_country=services.invoice_terms.seller.country,
        actor=caller.actor,
        now=now,
    )
    return await detail(session, invoice, now)


@router.delete("/invoices/{invoice_id}/lines/{position}")
@allows(Role.FINANCE)
async def remove_invoice_line(
    invoice_id: InvoiceId,
    position: Position,
    *,
    session: Database,
    services: Given,
    caller: Authenticated,
    now: Now,
) -> InvoiceDetailAnswer:
    """Take a line off a draft made by hand."""
    invoice = await operations.remove_line(
        session,
        invoice_id=invoice_id,
        position=position,
        seller_country=services.invoice_terms.seller.country,
        actor=caller.actor,
        now=now,
    )
    return await detail(session, invoice, now)


@router.delete("/invoices/{invoice_id}", status_code=204)
@allows(Role.FINANCE)
async def discard_invoice(invoice_id: InvoiceId, session: Database, caller: Authenticated, now: Now) -> None:
    """Delete a draft made by hand. A final invoice is never deleted: make it void."""
    await operations.discard_draft(session, invoice_id=invoice_id, actor=caller.actor, now=now)


@router.post("/invoices/{invoice_id}/finalise")
@allows(Role.FINANCE)
async def finalise_invoice(
    invoice_id: InvoiceId, session: Database, services: Given, caller: Authenticated, now: Now
) -> InvoiceDetailAnswer:
    """Make a draft by hand final, with the taxes in force now; it gets its number, and never changes again."""
    invoice = await operations.finalise_draft(
        session, invoice_id=invoice_id, terms=services.invoice_terms, actor=caller.actor, now=now
    )
    return await detail(session, invoice, now)


async def detail(session: AsyncSession, invoice: Invoice, now: datetime) -> InvoiceDetailAnswer:
    """Return an invoice, loaded with its lines, with its payments and credit notes."""
    payments = await payments_of_invoice(session, invoice.id)
    return detail_answer(invoice, payments, await notes_of_invoice(session, invoice.id), now)


def pdf_response(content: bytes, name: str) -> Response:
    """Answer with a file of that name."""
    disposition = f'inline; filename="{name}.pdf"'
    return Response(content, media_type=PDF, headers={"Content-Disposition": disposition})


async def _page(session: AsyncSession, query: InvoicesOfAccountQuery, *, account_id: str | None) -> Page[Invoice]:
    return await queries.all_invoices(
        session,
        account_id=account_id,
        statuses=() if query.status is None else (query.status,),
        number=query.number,
        period_from=query.period_from,
        period_until=query.period_until,
        cursor=query.cursor,
        limit=query.limit,
    )


def _lines(lines: list[ManualLineBody]) -> list[ManualLine]:
    return [
        ManualLine(description=line.description, quantity=line.quantity, unit_amount=Decimal(line.unit_amount))
        for line in lines
    ]
