"""Taking back a move that was planned for one subscription."""

from datetime import datetime
from enum import Enum, auto

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.plan_moves.model import moments_of
from control_plane.billing.plan_moves.tables import PlanMoveItem
from control_plane.subscriptions.phases import ahead
from control_plane.subscriptions.plan_changes import take_change_back
from control_plane.subscriptions.records import SubscriptionOverError, bumped_subscription


class TakenBack(Enum):
    """`NOT_THERE`: the customer has put something else in its place. `BEGUN`: too late, it is in force."""

    YES = auto()
    NOT_THERE = auto()
    BEGUN = auto()


async def take_back(
    session: AsyncSession, item: PlanMoveItem, *, plan_version_id: str, actor: str, now: datetime
) -> TakenBack:
    """Drop the planned change of a move. What the customer has planned, in its place or for later, stays."""
    try:
        _, subscription = await bumped_subscription(session, item.subscription_id, now)
    except SubscriptionOverError:
        return TakenBack.NOT_THERE  # with the subscription all that was planned is gone
    if ahead(subscription, now)[0].plan_version_id == plan_version_id:
        return TakenBack.BEGUN
    found = await take_change_back(
        session,
        subscription,
        plan_version_id=plan_version_id,
        begins=moments_of(item.effective_at, trial_ends_at=subscription.trial_ends_at),
        actor=actor,
        now=now,
    )
    return TakenBack.YES if found else TakenBack.NOT_THERE
