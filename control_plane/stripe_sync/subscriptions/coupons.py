"""Our coupons as Stripe has them: made there when they are first used."""

import re
from collections.abc import Collection
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.model import Duration
from control_plane.billing.discounts.tables import Coupon
from control_plane.billing.line_scopes import LineScope
from control_plane.catalog.tables import ApiProduct, Plan
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.period import MONTHS
from control_plane.stripe_sync.catalog.tables import StripeProduct
from control_plane.stripe_sync.client import StripeRefused, options
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.tables import StripeCoupon

_MADE_OF: Final = re.compile(r"_(cpn_[0-9a-z]{26})_(?:month|year)(?:_[0-9a-f]{10})?$")
MAX_NAME: Final = 40  # Stripe's, for what invoices call a coupon


class CouponNotAtStripeError(ConflictError):
    """Stripe has no coupon that does what this one does."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__("coupon_not_at_stripe", f"Coupon {code} cannot be used with Stripe: {why}.")


def coupon_terms(coupon: Coupon, interval: str) -> dict[str, Any]:
    """Return a coupon of ours in Stripe's words, without the products that it is for.

    Raises:
        CouponNotAtStripeError: it takes something off fixed charges alone, or off usage alone; or a part of a
        percentage that Stripe cannot say.
    """
    if coupon.scope != LineScope.ALL:
        raise CouponNotAtStripeError(
            coupon.code, f"it is for {coupon.scope} charges alone, and Stripe's are for all charges of a product"
        )
    params: dict[str, Any] = {"name": coupon.name[:MAX_NAME], **_duration(coupon, interval)}
    if coupon.percent is not None:
        if coupon.percent != round(coupon.percent, 2):
            raise CouponNotAtStripeError(coupon.code, "Stripe takes a percentage with at most two decimals")
        return {**params, "percent_off": float(coupon.percent)}
    return {**params, "amount_off": coupon.amount_minor, "currency": (coupon.currency or "").lower()}


def _duration(coupon: Coupon, interval: str) -> dict[str, Any]:
    match Duration(coupon.duration):
        case Duration.ONCE:
            return {"duration": "once"}
        case Duration.FOREVER:
            return {"duration": "forever"}
        case Duration.PERIODS:
            return {"duration": "repeating", "duration_in_months": (coupon.count or 1) * MONTHS[interval]}
        case Duration.MONTHS:
            return {"duration": "repeating", "duration_in_months": coupon.count or 1}


async def ensure_coupon(ctx: StripeContext, coupon_id: str, *, interval: str) -> str:
    """Return the id at Stripe of a coupon of ours for plans of an interval, made now if it is not there.

    Its id is made of ours, so that it is made once, whatever is cut off in between, and of the products that it is
    for: Stripe never changes these, so there is another one once a plan has come that it is for as well.

    Raises:
        CouponNotAtStripeError, StripeRefused, StripeUnavailable.
    """
    async with ctx.sessions() as session:
        known = await session.get(StripeCoupon, (coupon_id, interval))
        coupon = await session.get_one(Coupon, coupon_id)
        products = await _products(session, coupon)
    digest = f"_{sha256(' '.join(products).encode()).hexdigest()[:10]}" if products else ""
    stripe_id = f"km_{ctx.config.installation}_{coupon_id}_{interval}{digest}"
    if known is not None and known.stripe_coupon_id == stripe_id:
        return stripe_id
    params: Any = {
        **coupon_terms(coupon, interval),
        "id": stripe_id,
        "metadata": {**ctx.config.metadata, "km_object": coupon_id},
    }
    if products:
        params["applies_to"] = {"products": products}
    key = options(f"km:{ctx.config.installation}:coupon:{coupon_id}:{interval}{digest}")
    try:
        await ctx.stripe.call(lambda c: c.v1.coupons.create_async(params, key))
    except StripeRefused as error:
        if error.stripe_code != "resource_already_exists":
            raise
    await _note(ctx, coupon_id, interval, stripe_id, ctx.now)
    return stripe_id


async def _note(ctx: StripeContext, coupon_id: str, interval: str, stripe_id: str, now: datetime) -> None:
    async with ctx.sessions() as session, session.begin():
        values = {"coupon_id": coupon_id, "interval": interval, "stripe_coupon_id": stripe_id, "made_at": now}
        statement = insert(StripeCoupon).values(values)
        await session.execute(
            statement.on_conflict_do_update(
                index_elements=[StripeCoupon.coupon_id, StripeCoupon.interval],
                set_={"stripe_coupon_id": stripe_id, "made_at": now},
            )
        )


async def coupons_of_ours(session: AsyncSession, stripe_ids: Collection[str]) -> dict[str, str]:
    """Return, by Stripe's id, our coupons as which these were made, now or for the products of former days."""
    named = {one: found[1] for one in stripe_ids if (found := _MADE_OF.search(one)) is not None}
    if not named:
        return {}
    ours = set(await session.scalars(select(Coupon.id).where(is_any_of(Coupon.id, set(named.values())))))
    return {one: coupon_id for one, coupon_id in named.items() if coupon_id in ours}


async def _products(session: AsyncSession, coupon: Coupon) -> list[str]:
    """Return Stripe's products of the plans that a coupon is for; [] for all.

    Raises:
        CouponNotAtStripeError: none of them is at Stripe.
    """
    if not coupon.plan_codes and not coupon.product_codes:
        return []
    statement = (
        select(StripeProduct.product_id)
        .join(Plan, Plan.id == StripeProduct.plan_id)
        .join(ApiProduct, ApiProduct.id == Plan.api_product_id)
        .order_by(StripeProduct.product_id)
    )
    if coupon.plan_codes:
        statement = statement.where(Plan.code.in_(coupon.plan_codes))
    if coupon.product_codes:
        statement = statement.where(ApiProduct.code.in_(coupon.product_codes))
    found = list(await session.scalars(statement))
    if not found:
        raise CouponNotAtStripeError(coupon.code, "none of the plans that it is for is at Stripe")
    return found
