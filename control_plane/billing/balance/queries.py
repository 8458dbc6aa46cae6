"""Reads of balances."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.tables import AccountBalance, BalanceEntry
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has to its credit in one currency."""

    currency: str
    amount_minor: int


async def balances_of_account(session: AsyncSession, account_id: str) -> list[Balance]:
    """Return an account's balances, one for each currency that it ever had an entry in."""
    statement = (
        select(AccountBalance.currency, AccountBalance.amount_minor)
        .where(AccountBalance.account_id == account_id)
        .order_by(AccountBalance.currency)
    )
    return [Balance(currency, amount_minor) for currency, amount_minor in await session.execute(statement)]


async def balance_entries(
    session: AsyncSession, account_id: str, *, cursor: str | None = None, limit: int = 50
) -> Page[BalanceEntry]:
    """Return one page of an account's entries, newest first.

    Raises:
        ValidationFailedError: `cursor` is none of this list.
    """
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(BalanceEntry).where(BalanceEntry.account_id == account_id)
    if cursor is not None:
        statement = statement.where(BalanceEntry.id < decode_cursor(cursor, str)[0])
    rows = (await session.scalars(statement.order_by(BalanceEntry.id.desc()).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.id,))
