"""Cutting and opening phases, in the order that the database's constraints ask for."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.ids import new_id
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase


def open_phase(
    plan_version_id: str, *, starts_at: datetime, ends_at: datetime | None, now: datetime
) -> SubscriptionPhase:
    """Return a new phase; one that begins later is left for `advance` to tell the gateway of."""
    return SubscriptionPhase(
        id=new_id("ph", now),
        plan_version_id=plan_version_id,
        starts_at=starts_at,
        ends_at=ends_at,
        applied_at=now if starts_at <= now else None,
    )


async def cut_phases(
    session: AsyncSession, subscription: Subscription, *, at: datetime
) -> SubscriptionPhase | None:
    """Drop the phases that begin at or after a moment, end the one that runs then, and return that one.

    Flushes, since a phase may only be opened when no other is open.
    """
    for phase in [phase for phase in subscription.phases if phase.starts_at >= at]:
        subscription.phases.remove(phase)
        await session.delete(phase)
    last = subscription.phases[-1] if subscription.phases else None
    if last is not None:
        last.ends_at = at
    await session.flush()
    return last
