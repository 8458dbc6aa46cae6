"""Reading what we know of Stripe's invoices."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeCreditNote,
    StripeDispute,
    StripeInvoice,
    StripeInvoiceCheck,
    StripeInvoiceTask,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceDetail:
    """An invoice (with lines and payments) and all that belongs to it."""

    invoice: StripeInvoice
    task: StripeInvoiceTask | None
    check: StripeInvoiceCheck | None
    adjustments: Sequence[StripeAdjustment]
    credit_notes: Sequence[StripeCreditNote]
    disputes: Sequence[StripeDispute]


async def stripe_invoices(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    subscription_id: str | None = None,
    statuses: Collection[str] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[StripeInvoice]:
    """Return one page of invoices without their lines, newest first. `limit` is cut at 200.

    Raises:
        ValidationFailedError: `cursor` is none of this list.
    """
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    wanted: list[ColumnElement[bool]] = []
    if account_id is not None:
        wanted.append(StripeInvoice.account_id == account_id)
    if subscription_id is not None:
        wanted.append(StripeInvoice.subscription_id == subscription_id)
    if statuses:
        wanted.append(StripeInvoice.status.in_(sorted(statuses)))
    if cursor is not None:
        key = tuple_(StripeInvoice.created_at, StripeInvoice.id)
        wanted.append(key < tuple_(*decode_cursor(cursor, datetime, str)))
    statement = (
        select(StripeInvoice)
        .where(*wanted)
        .order_by(StripeInvoice.created_at.desc(), StripeInvoice.id.desc())
        .limit(limit + 1)
    )
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.id))


async def stripe_invoice(session: AsyncSession, invoice_id: str) -> InvoiceDetail:
    """Return an invoice by Stripe's id or number, with all that belongs to it.

    Raises:
        NotFoundError: there is none.
    """
    statement = (
        select(StripeInvoice)
        .where((StripeInvoice.id == invoice_id) | (StripeInvoice.number == invoice_id))
        .options(selectinload(StripeInvoice.lines), selectinload(StripeInvoice.payments))
        .order_by(StripeInvoice.created_at.desc())
    )
    found = (await session.scalars(statement)).first()
    if found is None:
        raise NotFoundError("stripe_invoice", invoice_id)
    adjustments = await session.scalars(
        select(StripeAdjustment).where(StripeAdjustment.invoice_id == found.id).order_by(StripeAdjustment.id)
    )
    notes = await session.scalars(
        select(StripeCreditNote).where(StripeCreditNote.invoice_id == found.id).order_by(StripeCreditNote.id)
    )
    disputes = await session.scalars(
        select(StripeDispute).where(StripeDispute.invoice_id == found.id).order_by(StripeDispute.id)
    )
    return InvoiceDetail(
        invoice=found,
        task=await session.get(StripeInvoiceTask, found.id),
        check=await session.get(StripeInvoiceCheck, found.id),
        adjustments=adjustments.all(),
        credit_notes=notes.all(),
        disputes=disputes.all(),
    )
