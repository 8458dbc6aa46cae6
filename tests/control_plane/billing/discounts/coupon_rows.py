"""Coupons and codes, made by the operations themselves."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.coupons import create_coupon, create_promotion_code
from control_plane.billing.discounts.model import CodeTerms, CouponTerms, Duration
from control_plane.billing.discounts.redeeming import redeem_coupon, redeem_promotion_code
from control_plane.billing.discounts.tables import Coupon, DiscountRow, PromotionCode
from tests.control_plane.builders import ACTOR


async def a_coupon(
    session: AsyncSession, *, now: datetime, code: str = "spring", percent: int | None = 20, **terms: Any
) -> Coupon:
    facts = {"name": code.title(), "duration": Duration.FOREVER, **terms}
    if "amount_minor" not in terms:
        facts["percent"] = Decimal(percent or 0)
    return await create_coupon(session, code=code, terms=CouponTerms(**facts), actor=ACTOR, now=now)


async def a_promotion_code(
    session: AsyncSession, *, now: datetime, code: str = "SPRING26", coupon: str = "spring", **terms: Any
) -> PromotionCode:
    return await create_promotion_code(
        session, code=code, coupon_code=coupon, terms=CodeTerms(**terms), actor=ACTOR, now=now
    )


async def redeem(
    session: AsyncSession, subscription_id: str, *, now: datetime, coupon: str = "spring", **options: Any
) -> DiscountRow:
    return await redeem_coupon(
        session, subscription_id=subscription_id, coupon_code=coupon, **options, actor=ACTOR, now=now
    )


async def redeem_code(
    session: AsyncSession, subscription_id: str, *, now: datetime, code: str = "SPRING26", **options: Any
) -> DiscountRow:
    return await redeem_promotion_code(
        session, subscription_id=subscription_id, code=code, **options, actor=ACTOR, now=now
    )
