"""Which discounts take something off an invoice of Stripe's, as values. Reads only."""

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.tables import Coupon
from control_plane.catalog.tables import ApiProduct, Plan
from control_plane.stripe_sync.catalog.tables import StripeProduct
from control_plane.stripe_sync.invoices.totals import DiscountTerms
from control_plane.stripe_sync.subscriptions.coupons import MAX_NAME
from control_plane.stripe_sync.subscriptions.tables import StripeDiscount


async def discounts_at(session: AsyncSession, subscription_id: str, *, at: datetime) -> tuple[DiscountTerms, ...]:
    """Return the discounts that take something off an invoice made at a moment, in Stripe's order."""
    rows = await session.execute(
        select(StripeDiscount, Coupon)
        .outerjoin(Coupon, Coupon.id == StripeDiscount.coupon_id)
        .where(
            StripeDiscount.subscription_id == subscription_id,
            StripeDiscount.starts_at <= at,
            or_(StripeDiscount.ends_at.is_(None), StripeDiscount.ends_at > at),
            or_(StripeDiscount.removed_at.is_(None), StripeDiscount.removed_at > at),
        )
        .order_by(StripeDiscount.starts_at, StripeDiscount.discount_id)
    )
    return tuple([await _terms(session, discount, coupon) for discount, coupon in rows.all()])


async def _terms(session: AsyncSession, discount: StripeDiscount, coupon: Coupon | None) -> DiscountTerms:
    return DiscountTerms(
        id=discount.discount_id,
        name=discount.stripe_coupon_id if coupon is None else coupon.name[:MAX_NAME],
        percent=discount.percent,
        amount_minor=discount.amount_minor or 0,
        products=None if coupon is None else await _products(session, coupon),
        item_id=discount.item_id,
    )


async def _products(session: AsyncSession, coupon: Coupon) -> frozenset[str] | None:
    """Return Stripe's products that a coupon is for, None for all."""
    if not coupon.plan_codes and not coupon.product_codes:
        return None
    statement = (
        select(StripeProduct.product_id)
        .join(Plan, Plan.id == StripeProduct.plan_id)
        .join(ApiProduct, ApiProduct.id == Plan.api_product_id)
    )
    if coupon.plan_codes:
        statement = statement.where(Plan.code.in_(coupon.plan_codes))
    if coupon.product_codes:
        statement = statement.where(ApiProduct.code.in_(coupon.product_codes))
    return frozenset(await session.scalars(statement))
