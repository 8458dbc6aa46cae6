"""Reading reconciliations."""

from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.reconciliation.tables import FoundDifference, Reconciliation


async def reconciliation(session: AsyncSession, reconciliation_id: str) -> Reconciliation:
    """Return one. Raises NotFoundError."""
    row = await session.get(Reconciliation, reconciliation_id)
    if row is None:
        raise NotFoundError("reconciliation", reconciliation_id)
    return row


async def last_of_all(session: AsyncSession) -> Reconciliation | None:
    """Return the last one that was done of all accounts."""
    statement = (
        select(Reconciliation)
        .where(Reconciliation.account_id.is_(None), Reconciliation.status == "done")
        .order_by(Reconciliation.created_at.desc(), Reconciliation.id.desc())
        .limit(1)
    )
    return (await session.scalars(statement)).one_or_none()


async def reconciliations(session: AsyncSession, *, cursor: str | None, limit: int) -> Page[Reconciliation]:
    """Return one page, newest first. `limit` is cut at 200.

    Raises:
        ValidationFailedError: the cursor is not one that a page has given out.
    """
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(Reconciliation)
    if cursor is not None:
        statement = statement.where(
            tuple_(Reconciliation.created_at, Reconciliation.id) < tuple_(*decode_cursor(cursor, datetime, str))
        )
    order = (Reconciliation.created_at.desc(), Reconciliation.id.desc())
    rows = (await session.scalars(statement.order_by(*order).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.id))


async def differences(
    session: AsyncSession,
    reconciliation_id: str,
    *,
    account_id: str | None = None,
    link: str | None = None,
    cursor: str | None,
    limit: int,
) -> Page[FoundDifference]:
    """Return one page of what a reconciliation found, the wrong ones first. `limit` is cut at 200.

    Raises:
        NotFoundError. ValidationFailedError: the cursor is not one that a page has given out.
    """
    await reconciliation(session, reconciliation_id)
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(FoundDifference).where(FoundDifference.reconciliation_id == reconciliation_id)
    if account_id is not None:
        statement = statement.where(FoundDifference.account_id == account_id)
    if link is not None:
        statement = statement.where(FoundDifference.link == link)
    if cursor is not None:
        (number,) = decode_cursor(cursor, int)
        statement = statement.where(FoundDifference.number > number)
    rows = (await session.scalars(statement.order_by(FoundDifference.number).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.number,))
