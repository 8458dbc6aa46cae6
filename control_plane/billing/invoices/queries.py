"""Reading invoices."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.billing.invoices.tables import Invoice
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of


async def invoice(session: AsyncSession, invoice_id: str) -> Invoice:
    """Return an invoice with its lines in order; drafts too.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(Invoice).where(Invoice.id == invoice_id).options(selectinload(Invoice.lines))
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("invoice", invoice_id)
    return found


async def locked_invoice(session: AsyncSession, invoice_id: str) -> Invoice:
    """Return an invoice with its lines, read afresh and locked until this transaction ends.

    Raises:
        NotFoundError: there is none.
    """
    statement = (
        select(Invoice)
        .where(Invoice.id == invoice_id)
        .options(selectinload(Invoice.lines))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("invoice", invoice_id)
    return found


async def invoices_of_account(
    session: AsyncSession,
    account_id: str,
    *,
    subscription_id: str | None = None,
    statuses: Collection[str] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Invoice]:
    """Return one page of an account's invoices without their lines, newest first; see `all_invoices`."""
    return await all_invoices(
        session,
        account_id=account_id,
        subscription_id=subscription_id,
        statuses=statuses,
        cursor=cursor,
        limit=limit,
    )


async def all_invoices(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    subscription_id: str | None = None,
    statuses: Collection[str] = (),
    number: str | None = None,
    period_from: datetime | None = None,
    period_until: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Invoice]:
    """Return one page of invoices without their lines, newest first; of all statuses where none is named.

    `period_from` and `period_until` (not included) bound where their periods begin. `limit` is cut at 200.

    Raises:
        ValidationFailedError: `cursor` is none of this list.
    """
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    wanted: list[ColumnElement[bool]] = []
    if account_id is not None:
        wanted.append(Invoice.account_id == account_id)
    if subscription_id is not None:
        wanted.append(Invoice.subscription_id == subscription_id)
    if statuses:
        wanted.append(Invoice.status.in_(sorted(statuses)))
    if number is not None:
        wanted.append(Invoice.number == number)
    if period_from is not None:
        wanted.append(Invoice.period_start >= period_from)
    if period_until is not None:
        wanted.append(Invoice.period_start < period_until)
    if cursor is not None:
        wanted.append(tuple_(Invoice.created_at, Invoice.id) < tuple_(*decode_cursor(cursor, datetime, str)))
    statement = (
        select(Invoice).where(*wanted).order_by(Invoice.created_at.desc(), Invoice.id.desc()).limit(limit + 1)
    )
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.id))
