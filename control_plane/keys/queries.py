"""Reading API keys."""

from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.keys.tables import ApiKey


async def key(session: AsyncSession, key_id: str) -> ApiKey:
    """Return one key.

    Raises:
        NotFoundError: there is no such key.
    """
    found = await session.get(ApiKey, key_id)
    if found is None:
        raise NotFoundError("api_key", key_id)
    return found


async def key_by_hash(session: AsyncSession, key_hash: str) -> ApiKey | None:
    """Return the key whose text has this SHA-256, revoked or not."""
    return (await session.scalars(select(ApiKey).where(ApiKey.key_hash == key_hash))).one_or_none()


async def key_page(
    session: AsyncSession, account_id: str, *, limit: int, cursor: str | None = None
) -> Page[ApiKey]:
    """Return an account's keys, revoked ones too, newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = (
        select(ApiKey)
        .where(ApiKey.account_id == account_id)
        .order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
        .limit(limit + 1)
    )
    if cursor:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(ApiKey.created_at, ApiKey.id) < after)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.id))
