"""What a subscription that Stripe bills has here: the ground on which changes of it are asked for."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.foundation.errors import NotFoundError
from control_plane.stripe_sync.subscriptions.model import Holding
from control_plane.stripe_sync.subscriptions.refusals import NotBilledByStripeError
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.phases import ahead
from control_plane.subscriptions.records import SubscriptionOverError, locked_subscription
from control_plane.subscriptions.tables import Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldHere:
    """A subscription and Stripe's row of it, locked with the account; what it has, and is planned to have."""

    account: Account
    subscription: Subscription
    row: StripeSubscription
    now: Holding
    later: Holding | None

    @property
    def on_trial(self) -> bool:
        return self.row.status == "trialing"


async def held_here(session: AsyncSession, subscription_id: str, *, now: datetime) -> HeldHere:
    """Return a subscription that Stripe bills, locked with its account.

    Raises:
        NotFoundError, SubscriptionOverError, NotBilledByStripeError.
    """
    account_id = await session.scalar(select(Subscription.account_id).where(Subscription.id == subscription_id))
    if account_id is None:
        raise NotFoundError("subscription", subscription_id)
    account = await session.get_one(
        Account, account_id, with_for_update={"key_share": True}, populate_existing=True
    )
    subscription = await locked_subscription(session, subscription_id)
    row = await session.get(StripeSubscription, subscription_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotBilledByStripeError(f"Subscription {subscription_id}", "nothing of it is at Stripe")
    if subscription.status in OVER or (subscription.ends_at is not None and subscription.ends_at <= now):
        raise SubscriptionOverError(subscription_id)
    planned = ahead(subscription, now)
    next_at = next((one.starts_at for one in planned if one.plan_version_id != planned[0].plan_version_id), None)
    changing = [at for add_on in subscription.add_ons for at in (add_on.starts_at, add_on.ends_at)]
    later_at = min([at for at in (next_at, *changing) if at is not None and at > now], default=None)
    later = None
    if later_at is not None and (subscription.ends_at is None or later_at < subscription.ends_at):
        later = _holding(subscription, later_at)
    return HeldHere(
        account=account, subscription=subscription, row=row, now=_holding(subscription, now), later=later
    )


def _holding(subscription: Subscription, at: datetime) -> Holding:
    add_ons = {
        one.plan_version_id: one.quantity
        for one in subscription.add_ons
        if one.starts_at <= at and (one.ends_at is None or at < one.ends_at)
    }
    return Holding.of(ahead(subscription, at)[0].plan_version_id, add_ons)
