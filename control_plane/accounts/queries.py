"""Reading accounts and tokens."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account, ApiToken
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of


async def account(session: AsyncSession, account_id: str) -> Account:
    """Return one account.

    Raises:
        NotFoundError: there is no such account.
    """
    found = await session.get(Account, account_id)
    if found is None:
        raise NotFoundError("account", account_id)
    return found


async def account_page(
    session: AsyncSession, *, limit: int, cursor: str | None = None, search: str | None = None
) -> Page[Account]:
    """Return accounts, newest first; `search` finds part of a name or an email, or a whole id or external id.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(Account).order_by(Account.created_at.desc(), Account.id.desc()).limit(limit + 1)
    if search:
        statement = statement.where(
            or_(
                Account.id == search,
                Account.external_id == search,
                Account.name.icontains(search, autoescape=True),
                Account.email.icontains(search, autoescape=True),
            )
        )
    if cursor:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(Account.created_at, Account.id) < after)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.id))


async def api_tokens(session: AsyncSession) -> Sequence[ApiToken]:
    """Return all API tokens, revoked ones too, newest first."""
    return (await session.scalars(select(ApiToken).order_by(ApiToken.created_at.desc(), ApiToken.id))).all()
