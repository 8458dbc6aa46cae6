"""Reading cases."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.dunning.tables import DunningCase
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.tables import PaymentHold, Subscription


async def case_page(
    session: AsyncSession,
    *,
    limit: int,
    cursor: str | None = None,
    account_id: str | None = None,
    subscription_id: str | None = None,
    state: str | None = None,
    is_open: bool | None = None,
) -> Page[DunningCase]:
    """Return cases, newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(DunningCase).order_by(DunningCase.opened_at.desc(), DunningCase.id.desc()).limit(limit + 1)
    wanted = (
        (DunningCase.account_id, account_id),
        (DunningCase.subscription_id, subscription_id),
        (DunningCase.state, state),
    )
    for column, value in wanted:
        if value is not None:
            statement = statement.where(column == value)
    if is_open is not None:
        statement = statement.where(DunningCase.closed_at.is_(None) == is_open)
    if cursor:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(DunningCase.opened_at, DunningCase.id) < after)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.opened_at, row.id))


async def without_case(session: AsyncSession, *, besides: Collection[str] = (), limit: int) -> list[str]:
    """Return past due subscriptions that have no open case, but for those in `besides`."""
    is_open = (
        select(DunningCase.id)
        .where(DunningCase.subscription_id == Subscription.id, DunningCase.closed_at.is_(None))
        .exists()
    )
    statement = (
        select(Subscription.id)
        .where(Subscription.status == Status.PAST_DUE.value, ~is_open, Subscription.id.not_in(list(besides)))
        .order_by(Subscription.id)
        .limit(limit)
    )
    return list(await session.scalars(statement))


async def due_cases(
    session: AsyncSession, *, now: datetime, besides: Collection[str] = (), limit: int
) -> list[str]:
    """Return open cases with something to do: a step is due, or the subscription was paid, or is over."""
    statement = (
        select(DunningCase.id)
        .join(Subscription, Subscription.id == DunningCase.subscription_id)
        .outerjoin(PaymentHold, PaymentHold.subscription_id == DunningCase.subscription_id)
        .where(
            DunningCase.closed_at.is_(None),
            (DunningCase.look_at <= now)
            | (Subscription.status != Status.PAST_DUE.value)
            | PaymentHold.subscription_id.is_(None),
            DunningCase.id.not_in(list(besides)),
        )
        .order_by(DunningCase.look_at.nulls_first(), DunningCase.id)
        .limit(limit)
    )
    return list(await session.scalars(statement))


async def open_by_state(session: AsyncSession) -> dict[str, int]:
    """Return how many cases are open, by state."""
    statement = (
        select(DunningCase.state, func.count()).where(DunningCase.closed_at.is_(None)).group_by(DunningCase.state)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}
