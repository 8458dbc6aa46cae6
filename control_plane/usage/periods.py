"""Figures of a subscription's billing periods: this one and those before it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.clock import MILLISECOND, floor_hour
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.period import period_containing
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.daily.rows import hours_kept_from
from control_plane.usage.queries import seal_state
from control_plane.usage.summary import GroupBy, UsageFigures, usage_summary


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodUsage:
    """What the account used of the subscription's API product in [start, end), by mode.

    `open_hours`: hours with usage of the account in it that are not sealed.
    """

    start: datetime
    end: datetime
    figures: dict[str, UsageFigures]
    open_hours: int


async def period_usage(
    session: AsyncSession, *, subscription_id: str, now: datetime, limit: int = 12
) -> list[PeriodUsage]:
    """Return up to `limit` billing periods, the one that holds `now` (or the last one) first.

    Periods end with the subscription, and go back to its beginning, or as far as hours are kept.

    Raises:
        NotFoundError: there is no such subscription.
    """
    found = (
        await session.execute(
            select(Subscription, ApiProduct.code)
            .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
            .where(Subscription.id == subscription_id)
        )
    ).one_or_none()
    if found is None:
        raise NotFoundError("subscription", subscription_id)
    subscription, product = found
    kept_from = await hours_kept_from(session)
    last = now if subscription.ends_at is None else max(subscription.started_at, min(now, subscription.ends_at))
    counted_from = subscription.anchor_at, subscription.interval, subscription.time_zone
    period = period_containing(last, *counted_from)
    periods: list[PeriodUsage] = []
    while (
        len(periods) < limit
        and period.end > floor_hour(subscription.started_at)
        and (kept_from is None or period.start >= kept_from)
    ):
        account_id, start, end = subscription.account_id, period.start, period.end
        figures = await usage_summary(
            session, account_id=account_id, product=product, start=start, end=end, group_by=[GroupBy.MODE]
        )
        state = await seal_state(session, account_id=account_id, start=start, end=end)
        periods.append(
            PeriodUsage(
                start=start,
                end=end,
                figures={one.by[GroupBy.MODE]: one for one in figures},
                open_hours=state.open_hours,
            )
        )
        period = period_containing(period.start - MILLISECOND, *counted_from)
    return periods
