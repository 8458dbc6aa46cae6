"""Reading mails."""

from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.notifications.tables import Mail


async def mail_by_id(session: AsyncSession, mail_id: str) -> Mail:
    """Return one mail.

    Raises:
        NotFoundError: there is none.
    """
    found = await session.get(Mail, mail_id)
    if found is None:
        raise NotFoundError("mail", mail_id)
    return found


async def mail_by_cause(session: AsyncSession, cause: str) -> Mail:
    """Return the mail that tells of something; it must have been queued."""
    return (await session.scalars(select(Mail).where(Mail.cause == cause))).one()


async def mail_page(
    session: AsyncSession,
    *,
    limit: int,
    cursor: str | None = None,
    account_id: str | None = None,
    state: str | None = None,
    kind: str | None = None,
) -> Page[Mail]:
    """Return mails, newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(Mail).order_by(Mail.created_at.desc(), Mail.id.desc()).limit(limit + 1)
    for column, wanted in ((Mail.account_id, account_id), (Mail.state, state), (Mail.kind, kind)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if cursor:
        statement = statement.where(tuple_(Mail.created_at, Mail.id) < decode_cursor(cursor, datetime, str))
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.id))
