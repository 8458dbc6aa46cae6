"""Reading how subscriptions stand at Stripe, as far as we have seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.stripe_sync.subscriptions.tables import (
    StripeDiscount,
    StripeSubscription,
    StripeSubscriptionItem,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A subscription at Stripe as it was read last, with its items, and the discounts that it has."""

    row: StripeSubscription
    items: Sequence[StripeSubscriptionItem]
    discounts: Sequence[StripeDiscount]


async def standing_of(session: AsyncSession, subscription_id: str) -> Standing:
    """Return how one of our subscriptions stands at Stripe.

    Raises:
        NotFoundError: Stripe does not bill it.
    """
    row = await session.get(StripeSubscription, subscription_id)
    if row is None:
        raise NotFoundError("stripe_subscription", subscription_id)
    items = select(StripeSubscriptionItem).where(StripeSubscriptionItem.stripe_id == row.stripe_id)
    discounts = select(StripeDiscount).where(
        StripeDiscount.subscription_id == subscription_id, StripeDiscount.removed_at.is_(None)
    )
    return Standing(
        row,
        (await session.scalars(items.order_by(StripeSubscriptionItem.item_id))).all(),
        (await session.scalars(discounts.order_by(StripeDiscount.starts_at, StripeDiscount.discount_id))).all(),
    )
