"""Reading digests."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.digests.tables import UsageDigest


@dataclass(frozen=True, slots=True)
class Hours:
    """Digests of the hours in [start, end)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Links:
    """Links of the chain from `first` to `last`, both included; to its end where `last` is None."""

    first: int
    last: int | None = None


async def digests(
    session: AsyncSession,
    *,
    account_id: str,
    wanted: Hours | Links,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[UsageDigest]:
    """Return one page of an account's digests of some hours, or a part of the chain, in the order of the chain.

    Every revision of an hour has one; the last counts. `limit` is cut at 200.

    Raises:
        ValidationFailedError: the cursor is not one that a page has given out.
    """
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(UsageDigest).where(UsageDigest.account_id == account_id)
    if isinstance(wanted, Hours):
        statement = statement.where(UsageDigest.hour >= wanted.start, UsageDigest.hour < wanted.end)
    else:
        statement = statement.where(UsageDigest.sequence >= wanted.first)
        if wanted.last is not None:
            statement = statement.where(UsageDigest.sequence <= wanted.last)
    if cursor is not None:
        statement = statement.where(UsageDigest.sequence > decode_cursor(cursor, int)[0])
    rows = (await session.scalars(statement.order_by(UsageDigest.sequence).limit(page_size + 1))).all()
    return page_of(rows, limit=page_size, sort_values=lambda row: (row.sequence,))


async def latest_digests(
    session: AsyncSession, *, account_id: str, hours: Collection[datetime]
) -> dict[datetime, UsageDigest]:
    """Return the digest of the highest revision by hour; hours without any are left out."""
    statement = (
        select(UsageDigest)
        .where(UsageDigest.account_id == account_id, UsageDigest.hour.in_(hours))
        .order_by(UsageDigest.revision)
    )
    return {row.hour: row for row in await session.scalars(statement)}
