"""Reading tax rates."""

from datetime import datetime

from sqlalchemy import or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.taxes.tables import TaxRate
from control_plane.foundation.pagination import Page, decode_cursor, page_of


async def tax_rate_page(
    session: AsyncSession,
    *,
    limit: int,
    cursor: str | None = None,
    country: str | None = None,
    valid_at: datetime | None = None,
) -> Page[TaxRate]:
    """Return tax rates by country, region and age; of one country, or valid at a moment, where that is asked.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    place = (TaxRate.country, TaxRate.region, TaxRate.id)
    statement = select(TaxRate).order_by(*place).limit(limit + 1)
    if country is not None:
        statement = statement.where(TaxRate.country == country)
    if valid_at is not None:
        statement = statement.where(
            TaxRate.valid_from <= valid_at,
            or_(TaxRate.valid_until.is_(None), TaxRate.valid_until > valid_at),
        )
    if cursor:
        statement = statement.where(tuple_(*place) > decode_cursor(cursor, str, str, str))
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.country, row.region, row.id))
