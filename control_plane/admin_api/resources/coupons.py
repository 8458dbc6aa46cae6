"""Coupons, and the codes that people type to get them."""

from typing import Annotated

from fastapi import APIRouter, Query

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.discount_forms import (
    CouponAnswer,
    CouponBody,
    CouponDetailAnswer,
    CouponsQuery,
    CreateCoupon,
    CreatePromotionCode,
    PromotionCodeAnswer,
    PromotionCodesQuery,
    TypedCodePath,
    coupon_answer,
    promotion_code_answer,
)
from control_plane.admin_api.forms import CodePath, MoneyAnswer, PageAnswer, page_answer
from control_plane.admin_api.services import Now
from control_plane.billing.discounts import coupons, queries

router = APIRouter(tags=["discounts"])


@router.post("/coupons", status_code=201)
@allows(Role.FINANCE)
async def create_coupon(body: CreateCoupon, session: Database, caller: Authenticated, now: Now) -> CouponAnswer:
    """Make a coupon: what can be taken off invoices. Put it on subscriptions, or make promotion codes for it."""
    made = await coupons.create_coupon(session, code=body.code, terms=body.terms(), actor=caller.actor, now=now)
    return coupon_answer(made)


@router.get("/coupons")
async def list_coupons(session: Database, query: Annotated[CouponsQuery, Query()]) -> PageAnswer[CouponAnswer]:
    """List coupons, newest first."""
    page = await queries.coupon_page(session, limit=query.limit, cursor=query.cursor, archived=query.archived)
    return page_answer(page, coupon_answer)


@router.get("/coupons/{code}")
async def get_coupon(code: CodePath, session: Database) -> CouponDetailAnswer:
    """Return one coupon, with what it has taken off so far."""
    found = await queries.coupon(session, code)
    sums = (await queries.taken_off(session, [found.id])).get(found.id, {})
    return CouponDetailAnswer(
        **coupon_answer(found).model_dump(),
        taken_off=[MoneyAnswer.of(amount, currency) for currency, amount in sums.items()],
    )


@router.put("/coupons/{code}")
@allows(Role.FINANCE)
async def change_coupon(
    code: CodePath, body: CouponBody, session: Database, caller: Authenticated, now: Now
) -> CouponAnswer:
    """Replace the terms of a coupon that nobody has redeemed yet; one that was redeemed is final."""
    changed = await coupons.change_coupon(session, code=code, terms=body.terms(), actor=caller.actor, now=now)
    return coupon_answer(changed)


@router.post("/coupons/{code}/archive")
@allows(Role.FINANCE)
async def archive_coupon(code: CodePath, session: Database, caller: Authenticated, now: Now) -> CouponAnswer:
    """Give the coupon, and its promotion codes, no more. Discounts that were given go on. Repeatable."""
    return coupon_answer(await coupons.archive_coupon(session, code=code, actor=caller.actor, now=now))


@router.post("/promotion-codes", status_code=201)
@allows(Role.FINANCE)
async def create_promotion_code(
    body: CreatePromotionCode, session: Database, caller: Authenticated, now: Now
) -> PromotionCodeAnswer:
    """Make a code that people type to get a coupon; each account can redeem it once."""
    made = await coupons.create_promotion_code(
        session, code=body.code, coupon_code=body.coupon, terms=body.terms(), actor=caller.actor, now=now
    )
    return promotion_code_answer(made)


@router.get("/promotion-codes")
async def list_promotion_codes(
    session: Database, query: Annotated[PromotionCodesQuery, Query()]
) -> PageAnswer[PromotionCodeAnswer]:
    """List promotion codes, newest first."""
    page = await queries.promotion_code_page(
        session, limit=query.limit, cursor=query.cursor, coupon_code=query.coupon, archived=query.archived
    )
    return page_answer(page, promotion_code_answer)


@router.post("/promotion-codes/{code}/archive")
@allows(Role.FINANCE)
async def archive_promotion_code(
    code: TypedCodePath, session: Database, caller: Authenticated, now: Now
) -> PromotionCodeAnswer:
    """Take a code back: nobody can redeem it any more. Discounts that were given go on. Repeatable."""
    archived = await coupons.archive_promotion_code(session, code=code, actor=caller.actor, now=now)
    return promotion_code_answer(archived)
