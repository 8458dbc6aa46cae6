"""Reading referrals, and what they brought."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.discounts.tables import Referral, ReferralReward
from control_plane.foundation.pagination import Page, decode_cursor, page_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferrerReport:
    """What one account brought, in one currency. `rewarded_minor` was paid, `pending_minor` is promised."""

    referrer_id: str
    referrer_name: str
    currency: str
    brought: int
    paying: int
    rewarded_minor: int
    pending_minor: int


async def rewards(session: AsyncSession) -> Sequence[ReferralReward]:
    """Return what a new paying account is worth, by currency."""
    return (await session.scalars(select(ReferralReward).order_by(ReferralReward.currency))).all()


async def referral_page(
    session: AsyncSession,
    *,
    limit: int,
    cursor: str | None = None,
    referrer_id: str | None = None,
    state: str | None = None,
) -> Page[Referral]:
    """Return referrals, the last one first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(Referral).order_by(Referral.created_at.desc(), Referral.account_id.desc()).limit(limit + 1)
    if referrer_id is not None:
        statement = statement.where(Referral.referrer_id == referrer_id)
    if state is not None:
        statement = statement.where(Referral.state == state)
    if cursor:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(Referral.created_at, Referral.account_id) < after)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.created_at, row.account_id))


async def referrer_page(session: AsyncSession, *, limit: int, cursor: str | None = None) -> Page[ReferrerReport]:
    """Return what each referrer brought, by account id and currency.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = (
        select(
            Referral.referrer_id,
            Account.name,
            Referral.currency,
            func.count(),
            func.count().filter(Referral.state != "pending"),
            _sum_where(Referral.state == "rewarded"),
            _sum_where(Referral.state == "pending"),
        )
        .join(Account, Account.id == Referral.referrer_id)
        .group_by(Referral.referrer_id, Account.name, Referral.currency)
        .order_by(Referral.referrer_id, Referral.currency)
        .limit(limit + 1)
    )
    if cursor:
        after = decode_cursor(cursor, str, str)
        statement = statement.where(tuple_(Referral.referrer_id, Referral.currency) > after)
    rows = [
        ReferrerReport(
            referrer_id=referrer_id,
            referrer_name=name,
            currency=currency,
            brought=brought,
            paying=paying,
            rewarded_minor=int(rewarded),
            pending_minor=int(pending),
        )
        for referrer_id, name, currency, brought, paying, rewarded, pending in await session.execute(statement)
    ]
    return page_of(rows, limit=limit, sort_values=lambda row: (row.referrer_id, row.currency))


def _sum_where(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, Referral.reward_minor), else_=0)), 0)
