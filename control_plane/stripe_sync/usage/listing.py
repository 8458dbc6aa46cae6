"""Rows of usage as operators see them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.tables import StripeUsageError, StripeUsageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """Which rows; None is any. Hours in [start, end)."""

    state: RowState | None = None
    account_id: str | None = None
    subscription_id: str | None = None
    meter: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        same = {
            StripeUsageRow.state: self.state,
            StripeUsageRow.account_id: self.account_id,
            StripeUsageRow.subscription_id: self.subscription_id,
            StripeUsageRow.meter: self.meter,
        }
        found = [column == value for column, value in same.items() if value is not None]
        found += [StripeUsageRow.hour >= self.start] if self.start is not None else []
        found += [StripeUsageRow.hour < self.end] if self.end is not None else []
        return found


async def list_rows(
    session: AsyncSession, wanted: RowFilter, *, cursor: str | None, limit: int
) -> Page[StripeUsageRow]:
    """Return one page of rows, account by account in the order of time.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    place = (
        StripeUsageRow.account_id,
        StripeUsageRow.hour,
        StripeUsageRow.revision,
        StripeUsageRow.phase_id,
        StripeUsageRow.meter,
    )
    statement = select(StripeUsageRow).where(*wanted.conditions()).order_by(*place).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(tuple_(*place) > decode_cursor(cursor, str, datetime, int, str, str))
    rows = (await session.scalars(statement)).all()
    return page_of(
        rows,
        limit=limit,
        sort_values=lambda row: (row.account_id, row.hour, row.revision, row.phase_id, row.meter),
    )


async def list_errors(session: AsyncSession, *, cursor: str | None, limit: int) -> Page[StripeUsageError]:
    """Return one page of what Stripe reported, the newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    place = (StripeUsageError.reported_at, StripeUsageError.event_id, StripeUsageError.code)
    statement = select(StripeUsageError).order_by(*(one.desc() for one in place)).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(tuple_(*place) < decode_cursor(cursor, datetime, str, str))
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.reported_at, row.event_id, row.code))
