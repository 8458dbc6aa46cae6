"""Coupons and promotion codes on a subscription that Stripe bills: wanted of Stripe, and counted here."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.coupons import locked_coupon, locked_promotion_code
from control_plane.billing.discounts.queries import discounts_of
from control_plane.billing.discounts.redeeming import redeem_coupon, redeem_promotion_code, remove_discount
from control_plane.billing.discounts.tables import Coupon
from control_plane.foundation.errors import NotFoundError
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.changes import carry_out, want_change
from control_plane.stripe_sync.subscriptions.coupons import coupon_terms, ensure_coupon
from control_plane.stripe_sync.subscriptions.held_here import HeldHere, held_here
from control_plane.stripe_sync.subscriptions.refusals import NotAtStripeError
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeDiscount
from control_plane.subscriptions.queries import subscription as subscription_of


async def give_discount(
    ctx: StripeContext,
    *,
    subscription_id: str,
    coupon_code: str | None = None,
    promotion_code: str | None = None,
    actor: str,
) -> StripeChange:
    """Put a coupon, or that of a promotion code, onto a subscription: it holds from the next invoice on; commits.

    It is counted here in the transaction that writes down that Stripe is to give it.

    Raises:
        NotFoundError, SubscriptionOverError, RedemptionRefusedError, CouponNotAtStripeError,
        ChangeInProgressError.
    """
    async with ctx.sessions() as session:
        interval, coupon_id = await _coupon_of(session, subscription_id, coupon_code, promotion_code)
    stripe_coupon = await ensure_coupon(ctx, coupon_id, interval=interval)
    async with ctx.sessions() as session, session.begin():
        held = await held_here(session, subscription_id, now=ctx.now)
        change = await want_change(
            session, held.row, Kind.DISCOUNT, {"coupon": stripe_coupon}, actor=actor, now=ctx.now
        )
        shared: Any = {"subscription_id": subscription_id, "starts": "next_period", "actor": actor, "now": ctx.now}
        if promotion_code is not None:
            await redeem_promotion_code(session, code=promotion_code, **shared)
        else:
            await redeem_coupon(session, coupon_code=coupon_code or "", **shared)
    return await carry_out(ctx, change.id)


async def take_discount(ctx: StripeContext, *, subscription_id: str, discount_id: str, actor: str) -> StripeChange:
    """Take a discount of ours, or one that only Stripe has (`di_...`), away from the next invoice on.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError.
    """
    async with ctx.sessions() as session, session.begin():
        held = await held_here(session, subscription_id, now=ctx.now)
        at_stripe = await _discount_at_stripe(session, held, discount_id)
        change = await want_change(
            session, held.row, Kind.DISCOUNT, {"remove": at_stripe}, actor=actor, now=ctx.now
        )
        if discount_id != at_stripe:
            await remove_discount(
                session, subscription_id=subscription_id, discount_id=discount_id, actor=actor, now=ctx.now
            )
    return await carry_out(ctx, change.id)


async def _coupon_of(
    session: AsyncSession, subscription_id: str, coupon_code: str | None, promotion_code: str | None
) -> tuple[str, str]:
    interval = (await subscription_of(session, subscription_id)).interval
    if promotion_code is not None:
        coupon: Coupon = (await locked_promotion_code(session, promotion_code)).coupon
    else:
        coupon = await locked_coupon(session, coupon_code or "")
    coupon_terms(coupon, interval)
    return interval, coupon.id


async def _discount_at_stripe(session: AsyncSession, held: HeldHere, discount_id: str) -> str:
    present = list(
        await session.scalars(
            select(StripeDiscount).where(
                StripeDiscount.subscription_id == held.subscription.id, StripeDiscount.removed_at.is_(None)
            )
        )
    )
    if any(one.discount_id == discount_id for one in present):
        return discount_id
    ours = next(
        (one for one in await discounts_of(session, held.subscription.id) if one.row.id == discount_id), None
    )
    if ours is None:
        raise NotFoundError("discount", discount_id)
    found = next((one.discount_id for one in present if one.coupon_id == ours.row.coupon_id), None)
    if found is None:
        raise NotAtStripeError(f"Discount {discount_id} is not on Stripe's subscription any more", "it is over")
    return found
