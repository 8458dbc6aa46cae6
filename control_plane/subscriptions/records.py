"""A subscription's row under lock, and its line in the audit log."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.operations import bump_gateway_version
from control_plane.accounts.tables import Account
from control_plane.foundation.audit import add_change
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription


class SubscriptionOverError(ConflictError):
    """The subscription was cancelled or has ended."""

    def __init__(self, subscription_id: str) -> None:
        super().__init__("subscription_over", f"Subscription {subscription_id} is over.")


async def bumped_subscription(
    session: AsyncSession, subscription_id: str, now: datetime
) -> tuple[Account, Subscription]:
    """Return a subscription that is not over, locked, and its account, whose gateway version is one higher.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    account_id = await session.scalar(select(Subscription.account_id).where(Subscription.id == subscription_id))
    if account_id is None:
        raise NotFoundError("subscription", subscription_id)
    account = await bump_gateway_version(session, account_id, now)
    subscription = await locked_subscription(session, subscription_id)
    if subscription.status in OVER or (subscription.ends_at is not None and subscription.ends_at <= now):
        raise SubscriptionOverError(subscription_id)
    return account, subscription


async def locked_subscription(session: AsyncSession, subscription_id: str) -> Subscription:
    """Return an existing subscription, read afresh with its phases and locked; lock its account first."""
    statement = (
        select(Subscription)
        .where(Subscription.id == subscription_id)
        .options(selectinload(Subscription.phases))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).one()


def facts(subscription: Subscription) -> dict[str, Any]:
    """Return what the audit log keeps of a subscription (phases loaded)."""
    return {
        "account_id": subscription.account_id,
        "status": subscription.status,
        "anchor_at": subscription.anchor_at.isoformat(),
        "ends_at": subscription.ends_at.isoformat() if subscription.ends_at else None,
        "overrides": dict(subscription.overrides),
        "spend_cap_minor": subscription.spend_cap_minor,
        "phases": [
            {
                "plan_version_id": phase.plan_version_id,
                "starts_at": phase.starts_at.isoformat(),
                "ends_at": phase.ends_at.isoformat() if phase.ends_at else None,
            }
            for phase in subscription.phases
        ],
    }


async def record(
    session: AsyncSession,
    subscription: Subscription,
    *,
    action: str,
    before: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    """Write the audit row of a change that was just made."""
    add_record(session, subscription, action=action, before=before, actor=actor, now=now)
    await session.flush()


def add_record(
    session: AsyncSession,
    subscription: Subscription,
    *,
    action: str,
    before: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    """Put the audit row of a change into the session, to be written with its next flush."""
    add_change(
        session,
        actor=actor,
        action=action,
        entity_type="subscription",
        entity_id=subscription.id,
        before=before,
        after=facts(subscription),
        now=now,
    )
