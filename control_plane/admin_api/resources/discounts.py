"""Discounts on a subscription."""

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.discount_forms import (
    DiscountAnswer,
    DiscountId,
    DiscountsAnswer,
    GiveDiscount,
    discount_answer,
)
from control_plane.admin_api.forms import SubscriptionId
from control_plane.admin_api.services import Now
from control_plane.admin_api.stripe_changes import ByStripe, followed
from control_plane.billing.discounts import queries, redeeming
from control_plane.billing.discounts.queries import HeldDiscount
from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.subscriptions import discounts as stripe_discounts
from control_plane.stripe_sync.subscriptions.refusals import NotAtStripeError
from control_plane.subscriptions.queries import subscription

router = APIRouter(prefix="/subscriptions/{subscription_id}/discounts", tags=["discounts"])


@router.get("")
async def list_discounts(subscription_id: SubscriptionId, session: Database, now: Now) -> DiscountsAnswer:
    """List the discounts that a subscription has or had, in the order in which they apply."""
    payer = await account(session, (await subscription(session, subscription_id)).account_id)
    held = await queries.discounts_of(session, subscription_id)
    return DiscountsAnswer(items=[discount_answer(one, currency=payer.currency, now=now) for one in held])


@router.post("", status_code=201)
@allows(Role.FINANCE)
async def give_discount(
    subscription_id: SubscriptionId,
    *,
    body: GiveDiscount,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> DiscountAnswer:
    """Put a coupon onto a subscription, or redeem a promotion code for it. What was billed before stays."""
    if (body.coupon is None) is (body.promotion_code is None):
        raise ValidationFailedError("coupon", "give either a coupon or a promotion code")
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        if body.starts == "now":
            raise NotAtStripeError("What Stripe has billed stays", "let it start with the next period")
        change = await stripe_discounts.give_discount(
            stripe,
            subscription_id=subscription_id,
            coupon_code=body.coupon,
            promotion_code=body.promotion_code,
            actor=caller.actor,
        )
        await followed(session, change)
        newest = max(await queries.discounts_of(session, subscription_id), key=lambda held: held.row.id)
        return discount_answer(newest, currency=await _currency(session, newest), now=now)
    if body.promotion_code is not None:
        row = await redeeming.redeem_promotion_code(
            session,
            subscription_id=subscription_id,
            code=body.promotion_code,
            starts=body.starts,
            actor=caller.actor,
            now=now,
        )
    else:
        row = await redeeming.redeem_coupon(
            session,
            subscription_id=subscription_id,
            coupon_code=body.coupon or "",
            starts=body.starts,
            actor=caller.actor,
            now=now,
        )
    held = await queries.held_discount(session, row.id)
    return discount_answer(held, currency=await _currency(session, held), now=now)


@router.delete("/{discount_id}")
@allows(Role.FINANCE)
async def remove_discount(
    subscription_id: SubscriptionId,
    *,
    discount_id: DiscountId,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> DiscountAnswer:
    """Take a discount away: with the end of the billing period if it took something off, else now. Repeatable."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_discounts.take_discount(
            stripe, subscription_id=subscription_id, discount_id=discount_id, actor=caller.actor
        )
        await followed(session, change)
    else:
        await redeeming.remove_discount(
            session, subscription_id=subscription_id, discount_id=discount_id, actor=caller.actor, now=now
        )
    held = await queries.held_discount(session, discount_id)
    return discount_answer(held, currency=await _currency(session, held), now=now)


async def _currency(session: AsyncSession, held: HeldDiscount) -> str:
    return (await account(session, held.row.account_id)).currency
