"""Delivered rows that Stripe does not count, found by its summaries and sent anew."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.errors import ConflictError
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.usage.asking import begin_anew
from control_plane.stripe_sync.usage.comparing import SummaryDifference, compare_summaries, differing_hours
from control_plane.stripe_sync.usage.looking import which_are_there
from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.operations import Outcome, Retried, record_rows
from control_plane.stripe_sync.usage.rows import key_of, lock_queue
from control_plane.stripe_sync.usage.summaries import QUIET
from control_plane.stripe_sync.usage.tables import StripeUsageRow


class StillDifferingError(ConflictError):
    """Stripe counts more than was delivered, or no rows make up what it lacks."""

    def __init__(self, hour: SummaryDifference) -> None:
        super().__init__(
            "usage_not_explained",
            f"Stripe counts {hour.stripe_units:,} units of {hour.meter} in the hour from "
            f"{hour.start:%Y-%m-%d %H:%M} UTC, and {hour.delivered_units:,} were delivered: no rows make up the "
            "difference. Look at the meter's events at Stripe.",
        )


class NotSummedUpError(ConflictError):
    """Rows of an hour were sent lately, or nobody knows whether Stripe has them."""

    def __init__(self, hour: SummaryDifference) -> None:
        super().__init__(
            "usage_not_summed_up",
            f"Stripe may not have summed up the hour from {hour.start:%Y-%m-%d %H:%M} UTC yet: ask again in half "
            "an hour.",
        )


async def replay_missing(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    subscription_id: str,
    start: datetime,
    end: datetime,
    dry_run: bool,
    reason: str,
    actor: str,
    now: datetime,
) -> list[Retried]:
    """Send delivered rows anew that Stripe's summaries of [start, end) lack, hour by hour.

    Only rows that make up exactly what an hour lacks; nothing is sent where one hour cannot be explained. With
    `dry_run` nothing changes.

    Raises:
        NotSummedUpError, StillDifferingError: see there.
        StripeRefused, StripeUnavailable: the summaries could not be read.
    """
    differences = await compare_summaries(sessions, stripe, subscription_id=subscription_id, start=start, end=end)
    hours = [hour for one in differences for hour in await differing_hours(sessions, stripe, one)]
    found: list[Retried] = []
    async with sessions() as session, session.begin():
        await lock_queue(session)
        missing = [row for hour in hours for row in await _missing(session, hour, now)]
        for row in missing:
            found.append(Retried(key_of(row), row.delta_units, RowState.DELIVERED, row.reason, Outcome.SENT_ANEW))
            if not dry_run:
                begin_anew(row, now=now)
        if found and not dry_run:
            action = "stripe_usage.replayed"
            await record_rows(session, action, found, reason=reason, assume=None, actor=actor, now=now)
    return found


async def _missing(session: AsyncSession, hour: SummaryDifference, now: datetime) -> list[StripeUsageRow]:
    """Return the delivered rows of an hour that Stripe does not count. Raises as `replay_missing` does."""
    rows = (
        await session.scalars(
            select(StripeUsageRow)
            .where(
                StripeUsageRow.customer_id == hour.customer_id,
                StripeUsageRow.event_name == hour.event_name,
                StripeUsageRow.stripe_at >= hour.start,
                StripeUsageRow.stripe_at < hour.end,
                StripeUsageRow.state.in_([RowState.DELIVERED, RowState.SENT, RowState.CANCELLED]),
            )
            .order_by(StripeUsageRow.hour, StripeUsageRow.revision)
            .with_for_update()
        )
    ).all()
    if any(row.state == RowState.SENT or (row.sent_at or now) + QUIET > now for row in rows):
        raise NotSummedUpError(hour)
    delivered = [row for row in rows if row.state == RowState.DELIVERED]
    there = which_are_there(hour.stripe_units, [row.delta_units for row in delivered])
    if there is None:
        raise StillDifferingError(hour)
    return [row for row, is_there in zip(delivered, there, strict=True) if not is_there]
