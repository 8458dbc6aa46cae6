"""Reading credits."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits.model import (
    CreditSum,
    GrantNotFoundError,
    ReservationNotFoundError,
    ReservationStatus,
)
from control_plane.billing.credits.tables import CreditEntry, CreditGrant, CreditReservation, InvoiceCredits
from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.db import is_any_of
from control_plane.foundation.pagination import Page, decode_cursor, page_of


async def credit_sums(session: AsyncSession, account_id: str, *, now: datetime) -> list[CreditSum]:
    """Return what an account has of credits at `now`, by currency; nothing where it never had any.

    Credits that only one API product can use are in it.
    """
    expired = func.coalesce(CreditGrant.expires_at <= now, False)
    later = CreditGrant.starts_at > now
    statement = (
        select(
            CreditGrant.currency,
            func.coalesce(func.sum(CreditGrant.remaining_minor).filter(~later, ~expired), 0),
            func.coalesce(func.sum(CreditGrant.remaining_minor).filter(later), 0),
        )
        .where(CreditGrant.account_id == account_id)
        .group_by(CreditGrant.currency)
        .order_by(CreditGrant.currency)
    )
    held = (
        select(CreditReservation.currency, func.sum(CreditReservation.held_minor))
        .where(
            CreditReservation.account_id == account_id,
            CreditReservation.status == ReservationStatus.HELD.value,
        )
        .group_by(CreditReservation.currency)
    )
    reserved: dict[str, int] = defaultdict(int)
    for currency, total in await session.execute(held):
        reserved[currency] = int(total)
    return [
        CreditSum(
            currency=currency,
            available_minor=int(available),
            reserved_minor=reserved[currency],
            later_minor=int(later_minor),
        )
        for currency, available, later_minor in await session.execute(statement)
    ]


async def grant(session: AsyncSession, grant_id: str) -> CreditGrant:
    """Return one grant.

    Raises:
        GrantNotFoundError.
    """
    found = await session.get(CreditGrant, grant_id)
    if found is None:
        raise GrantNotFoundError(grant_id)
    return found


async def grant_page(
    session: AsyncSession, account_id: str, *, limit: int, cursor: str | None = None
) -> Page[CreditGrant]:
    """Return an account's grants, newest first, used up ones too.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(CreditGrant).where(CreditGrant.account_id == account_id).order_by(CreditGrant.id.desc())
    if cursor:
        statement = statement.where(CreditGrant.id < decode_cursor(cursor, str)[0])
    rows = (await session.scalars(statement.limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.id,))


async def entry_page(
    session: AsyncSession, account_id: str, *, grant_id: str | None = None, limit: int, cursor: str | None = None
) -> Page[CreditEntry]:
    """Return the entries of an account, or of one of its grants, newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement: Select[CreditEntry] = select(CreditEntry).where(CreditEntry.account_id == account_id)
    if grant_id is not None:
        statement = statement.where(CreditEntry.grant_id == grant_id)
    if cursor:
        statement = statement.where(CreditEntry.id < decode_cursor(cursor, str)[0])
    rows = (await session.scalars(statement.order_by(CreditEntry.id.desc()).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.id,))


async def reservation(session: AsyncSession, reservation_id: str) -> CreditReservation:
    """Return one reservation.

    Raises:
        ReservationNotFoundError.
    """
    found = await session.get(CreditReservation, reservation_id)
    if found is None:
        raise ReservationNotFoundError(reservation_id)
    return found


async def reservation_page(
    session: AsyncSession, account_id: str, *, limit: int, cursor: str | None = None
) -> Page[CreditReservation]:
    """Return an account's reservations, newest first, those that ended too.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(CreditReservation).where(CreditReservation.account_id == account_id)
    if cursor:
        statement = statement.where(CreditReservation.id < decode_cursor(cursor, str)[0])
    rows = (await session.scalars(statement.order_by(CreditReservation.id.desc()).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.id,))


async def currencies(session: AsyncSession, grant_ids: Collection[str]) -> dict[str, str]:
    """Return the currencies of grants by id."""
    statement = select(CreditGrant.id, CreditGrant.currency).where(is_any_of(CreditGrant.id, grant_ids))
    return dict((await session.execute(statement)).all())


async def product_codes(session: AsyncSession, product_ids: Collection[str]) -> dict[str, str]:
    """Return the codes of API products by id."""
    statement = select(ApiProduct.id, ApiProduct.code).where(is_any_of(ApiProduct.id, product_ids))
    return dict((await session.execute(statement)).all())


async def invoice_credits(session: AsyncSession, invoice_id: str) -> InvoiceCredits | None:
    """Return what credits paid of an invoice, None where they paid nothing."""
    return await session.get(InvoiceCredits, invoice_id)
