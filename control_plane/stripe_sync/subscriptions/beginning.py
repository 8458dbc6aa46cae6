"""How a subscription of ours begins that was bought at Stripe. Nothing here commits."""

from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import bump_gateway_version
from control_plane.billing.discounts.founding import join_founders
from control_plane.billing.discounts.redeeming import redeem_promotion_code
from control_plane.billing.discounts.refusals import RedemptionRefusedError
from control_plane.billing.discounts.tables import PromotionCode
from control_plane.catalog.queries import plan_versions
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.subscriptions.lookups import prices_of_versions
from control_plane.stripe_sync.subscriptions.model import Holding, SubscriptionState, hour_here
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeCheckout, StripeSubscription
from control_plane.subscriptions.beginnings import new_subscription
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.operations import cancel
from control_plane.subscriptions.records import (
    begin_phases,
    end_in_time,
    locked_subscription,
    record,
    tell_billing,
)
from control_plane.subscriptions.tables import Subscription

STRIPE_ZONE = "UTC"  # Stripe counts months in UTC
log = structlog.get_logger(__name__)


class SubscribedTwiceError(ConflictError):
    """Stripe has a second subscription to an API product of an account; somebody has to cancel one there."""

    def __init__(self, stripe_id: str, subscription_id: str) -> None:
        super().__init__(
            "subscribed_twice",
            f"Stripe's subscription {stripe_id} is to an API product that {subscription_id} is to as well: cancel "
            "one of them at Stripe, and give back what it cost.",
        )


async def begin_subscription(
    session: AsyncSession, checkout_id: str, state: SubscriptionState, held: Holding | None, *, now: datetime
) -> Subscription:
    """Begin what a checkout has bought, from now on; what the account had of that API product before ends.

    Periods are Stripe's, on full hours of UTC. Ours waits for nothing more: the payment was made, or the trial
    begun.

    Raises:
        SubscribedTwiceError.
    """
    now = floor_ms(now)
    account_id = (await session.get_one(StripeCheckout, checkout_id)).account_id
    await bump_gateway_version(session, account_id, now)
    checkout = await session.get_one(StripeCheckout, checkout_id, with_for_update=True, populate_existing=True)
    version_id = checkout.plan_version_id if held is None else held.plan_version_id
    version = (await plan_versions(session, [version_id]))[version_id]
    await _end_present(session, checkout, state, now=now)
    on_trial = state.status == "trialing" and state.trial_end is not None and state.trial_end > now
    subscription = new_subscription(
        account_id,
        version,
        anchor_at=hour_here(state.billing_cycle_anchor),
        time_zone=STRIPE_ZONE,
        trial_ends_at=state.trial_end if on_trial else None,
        now=now,
    )
    session.add(subscription)
    await session.flush()
    actor = checkout.requested_by
    await record(session, subscription, action="subscription.started", before=None, actor=actor, now=now)
    await tell_billing(session, subscription, now)
    checkout.state, checkout.subscription_id, checkout.stripe_id = "completed", subscription.id, state.stripe_id
    checkout.finished_at, checkout.next_try_at = now, None
    await _give_discounts(session, checkout, subscription, now=now)
    return subscription


async def want_rest(session: AsyncSession, row: StripeSubscription, checkout_id: str, *, now: datetime) -> None:
    """Write down what a checkout could not say of the subscription whose row was just written.

    That it ends with its trial, and the setup fee of what begins with one, which is due when the trial ends.
    """
    checkout = await session.get_one(StripeCheckout, checkout_id)
    prices = await prices_of_versions(session, [checkout.plan_version_id], currency=checkout.currency)
    fees = [one.price_id for one in prices.get(checkout.plan_version_id, ()) if one.kind == "setup_fee"]
    on_trial = checkout.trial_ends_at is not None or checkout.trial_days is not None
    if not on_trial:
        row.setup_fee_at = now if fees else None
        return
    version = (await plan_versions(session, [checkout.plan_version_id]))[checkout.plan_version_id]
    ends = version.after_trial == "cancel"
    if not fees and not ends:
        return
    wanted = {"end_with_trial": ends, "setup_fees": [] if ends else fees}
    session.add(
        StripeChange(
            id=new_id("chg", now),
            subscription_id=row.subscription_id,
            kind=Kind.BEGIN.value,
            wanted=wanted,
            state="wanted",
            attempt=1,
            tries=0,
            problem_code="",
            problem="",
            requested_by=checkout.requested_by,
            created_at=now,
            next_try_at=now,
        )
    )
    await session.flush()


async def _end_present(
    session: AsyncSession, checkout: StripeCheckout, state: SubscriptionState, *, now: datetime
) -> None:
    """End the account's subscription to the API product, one with invoices of our own."""
    present = await session.scalar(
        select(Subscription.id).where(
            Subscription.account_id == checkout.account_id,
            Subscription.api_product_id == checkout.api_product_id,
            Subscription.status.not_in(sorted(OVER)),
        )
    )
    if present is None:
        return
    found = await locked_subscription(session, present)
    if end_in_time(session, found, now):
        begin_phases(session, found, now)
        await session.flush()
        await tell_billing(session, found, now)
        return
    if found.billed_by == "stripe":
        raise SubscribedTwiceError(state.stripe_id, present)
    await cancel(
        session,
        subscription_id=present,
        at="now",
        unused_time="credited",
        actor=checkout.requested_by,
        now=now,
    )


async def _give_discounts(
    session: AsyncSession, checkout: StripeCheckout, subscription: Subscription, *, now: datetime
) -> None:
    """Count the founding member or the promotion code. Stripe gives the discount whatever becomes of this."""
    try:
        async with session.begin_nested():
            if checkout.founding_offer_id is not None:
                await join_founders(session, [subscription.id], now=now)
            elif checkout.promotion_code_id is not None:
                code = (await session.get_one(PromotionCode, checkout.promotion_code_id)).code
                actor = checkout.requested_by
                await redeem_promotion_code(
                    session, subscription_id=subscription.id, code=code, actor=actor, now=now
                )
    except RedemptionRefusedError as error:
        log.warning("stripe_discount_beyond_its_limits", checkout_id=checkout.id, code=error.code)
