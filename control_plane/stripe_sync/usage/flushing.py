"""Bringing a subscription's sealed usage to Stripe now: before its plan changes, before an invoice is final."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.errors import NotFoundError
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.usage.measuring import OPEN
from control_plane.stripe_sync.usage.queue import Only
from control_plane.stripe_sync.usage.sender import send_due
from control_plane.stripe_sync.usage.tables import StripeUsageRow
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.tables import UsageHour

AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """What is left to do of a subscription's hours before `until`.

    `waiting_rows`: Stripe does not have them, or nobody knows; `waiting_hours`: their hours, and hours with usage
    of the account that are not sealed. Rows that Stripe will not take (refused, too old, ours to bill) are left.
    """

    until: datetime
    waiting_rows: int
    waiting_hours: tuple[datetime, ...]

    @property
    def all_delivered(self) -> bool:
        """Say whether nothing is on its way or still to be sealed, as far as hours with usage are known."""
        return not self.waiting_rows and not self.waiting_hours


async def flush(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    subscription_id: str,
    until: datetime,
    clock: Callable[[], datetime] = utc_now,
) -> Flushed:
    """Send what is sealed of a subscription's hours before `until`, also what was put off, and say what is left.

    Safe beside the sender and beside other flushes. A row is tried once; what fails stays for the sender. That all
    usage of the period is collected and sealed is another question: see `usage.unsettled`.

    Raises:
        NotFoundError: there is no such subscription.
    """
    async with sessions() as session, session.begin():
        account_id = await session.scalar(
            select(Subscription.account_id).where(Subscription.id == subscription_id)
        )
        if account_id is None:
            raise NotFoundError("subscription", subscription_id)
        await session.execute(
            update(StripeUsageRow)
            .where(
                StripeUsageRow.subscription_id == subscription_id,
                StripeUsageRow.hour < until,
                StripeUsageRow.state.in_(OPEN),
                StripeUsageRow.due_at > clock(),
            )
            .values(due_at=clock())
            .execution_options(synchronize_session=False)
        )
    only = Only(subscription_id=subscription_id, account_id=account_id, until=until)
    await send_due(sessions, stripe, clock=clock, only=only, limit=AT_ONCE)
    async with sessions() as session:
        return await _left(session, subscription_id, account_id, until)


async def _left(session: AsyncSession, subscription_id: str, account_id: str, until: datetime) -> Flushed:
    rows = (
        await session.execute(
            select(StripeUsageRow.hour, func.count())
            .where(
                StripeUsageRow.subscription_id == subscription_id,
                StripeUsageRow.hour < until,
                StripeUsageRow.state.in_(OPEN),
            )
            .group_by(StripeUsageRow.hour)
        )
    ).all()
    started_at = await session.scalar(select(Subscription.started_at).where(Subscription.id == subscription_id))
    unsealed = await session.scalars(
        select(UsageHour.hour).where(
            UsageHour.account_id == account_id,
            UsageHour.sealed_at.is_(None),
            UsageHour.hour < until,
            UsageHour.hour >= func.date_trunc("hour", started_at, "UTC"),
        )
    )
    hours = {hour for hour, _ in rows} | set(unsealed)
    return Flushed(until=until, waiting_rows=sum(count for _, count in rows), waiting_hours=tuple(sorted(hours)))
