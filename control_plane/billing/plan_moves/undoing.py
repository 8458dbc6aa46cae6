"""Taking back a move that was planned for one subscription."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.plan_moves.tables import PlanMoveItem
from control_plane.subscriptions.plan_changes import discard_change
from control_plane.subscriptions.records import SubscriptionOverError
from control_plane.subscriptions.timelines import timeline


async def take_back(
    session: AsyncSession, item: PlanMoveItem, *, plan_version_id: str, actor: str, now: datetime
) -> None:
    """Drop the planned phase of a move, unless the customer has put another change in its place."""
    found = await timeline(session, item.subscription_id)
    is_ours = any(
        phase.plan_version_id == plan_version_id and phase.starts_at == item.effective_at for phase in found.phases
    )
    if not is_ours:
        return
    try:
        await discard_change(session, subscription_id=item.subscription_id, actor=actor, now=now)
    except SubscriptionOverError:
        return  # with the subscription all that was planned is gone
