"""Making coupons and promotion codes, changing and archiving them. Nothing here commits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.billing.discounts.checks import (
    check_code_terms,
    check_coupon_code,
    check_promotion_code,
    check_terms,
)
from control_plane.billing.discounts.model import CodeTerms, CouponTerms, Duration
from control_plane.billing.discounts.refusals import ArchivedError
from control_plane.billing.discounts.tables import Coupon, PromotionCode
from control_plane.billing.line_scopes import LineScope
from control_plane.catalog.tables import ApiProduct, Plan
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError, Problem, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.text import clean_name


class CodeTakenError(ConflictError):
    """Another coupon or promotion code has the code; archived ones keep theirs."""

    def __init__(self, kind: str, code: str) -> None:
        super().__init__(f"{kind}_taken", f"The code {code} is taken: choose another.")


class CouponRedeemedError(ConflictError):
    """What customers were given stays as they were given it."""

    def __init__(self, code: str) -> None:
        super().__init__(
            "coupon_redeemed", f"Coupon {code} has been redeemed, so its terms are final: make another one."
        )


async def create_coupon(
    session: AsyncSession, *, code: str, terms: CouponTerms, actor: str, now: datetime
) -> Coupon:
    """Make a coupon. It can be put on subscriptions at once, and be given promotion codes.

    Raises:
        ValidationFailedError: terms that are not usable, or name plans or API products that are not there.
        CodeTakenError: see there.
    """
    check_coupon_code(code)
    await _check(session, terms)
    coupon = Coupon(id=new_id("cpn", now), code=code, redemptions=0, created_at=now, **_columns(terms))
    await _add(session, coupon, kind="coupon_code", code=code)
    await _record(session, coupon, "coupon.created", before=None, after=facts(coupon), actor=actor, now=now)
    return coupon


async def change_coupon(
    session: AsyncSession, *, code: str, terms: CouponTerms, actor: str, now: datetime
) -> Coupon:
    """Replace the terms of a coupon that nobody has redeemed yet. Terms that it has already change nothing.

    Raises:
        NotFoundError, ValidationFailedError, CouponRedeemedError, ArchivedError.
    """
    await _check(session, terms)
    coupon = await locked_coupon(session, code)
    if terms_of(coupon) == terms:
        return coupon
    if coupon.redemptions:
        raise CouponRedeemedError(code)
    if coupon.archived_at is not None:
        raise ArchivedError("coupon", code)
    before = facts(coupon)
    for name, value in _columns(terms).items():
        setattr(coupon, name, value)
    await _record(session, coupon, "coupon.changed", before=before, after=facts(coupon), actor=actor, now=now)
    return coupon


async def archive_coupon(session: AsyncSession, *, code: str, actor: str, now: datetime) -> Coupon:
    """Give a coupon, and its promotion codes, no more. Discounts made of it go on. Repeating changes nothing.

    Raises:
        NotFoundError: there is no such coupon.
    """
    coupon = await locked_coupon(session, code)
    if coupon.archived_at is None:
        coupon.archived_at = now
        after = {"archived_at": now.isoformat()}
        await _record(
            session, coupon, "coupon.archived", before={"archived_at": None}, after=after, actor=actor, now=now
        )
    return coupon


async def create_promotion_code(
    session: AsyncSession, *, code: str, coupon_code: str, terms: CodeTerms, actor: str, now: datetime
) -> PromotionCode:
    """Make a code that people type to get a coupon. Capitals and small letters are the same.

    Raises:
        ValidationFailedError: code or terms are not usable. NotFoundError: no such coupon. ArchivedError: the
        coupon is. CodeTakenError: see there.
    """
    text = check_promotion_code(code)
    check_code_terms(terms)
    coupon = await locked_coupon(session, coupon_code)
    if coupon.archived_at is not None:
        raise ArchivedError("coupon", coupon_code)
    promotion = PromotionCode(
        id=new_id("pmc", now),
        code=text,
        coupon_id=coupon.id,
        coupon=coupon,
        redemptions=0,
        created_at=now,
        max_redemptions=terms.max_redemptions,
        redeem_until=terms.redeem_until,
        first_time_only=terms.first_time_only,
        minimum_minor=terms.minimum_minor,
        minimum_currency=terms.minimum_currency,
    )
    await _add(session, promotion, kind="promotion_code", code=text)
    after = {"code": text, "coupon": coupon_code, **terms.as_dict()}
    await _record(session, promotion, "promotion_code.created", before=None, after=after, actor=actor, now=now)
    return promotion


async def archive_promotion_code(session: AsyncSession, *, code: str, actor: str, now: datetime) -> PromotionCode:
    """Take a promotion code back: nobody can redeem it any more. Discounts go on. Repeating changes nothing.

    Raises:
        NotFoundError: there is no such code.
    """
    promotion = await locked_promotion_code(session, code)
    if promotion.archived_at is None:
        promotion.archived_at = now
        await _record(
            session,
            promotion,
            "promotion_code.archived",
            before={"archived_at": None},
            after={"archived_at": now.isoformat()},
            actor=actor,
            now=now,
        )
    return promotion


async def locked_coupon(session: AsyncSession, code: str) -> Coupon:
    """Return a coupon, read afresh, under its row lock.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(Coupon).where(Coupon.code == code).with_for_update()
    coupon = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if coupon is None:
        raise NotFoundError("coupon", code)
    return coupon


async def locked_promotion_code(session: AsyncSession, code: str) -> PromotionCode:
    """Return a promotion code and its coupon, read afresh, both under their row locks.

    Raises:
        NotFoundError: there is none.
    """
    text = code.strip().upper()
    statement = select(PromotionCode).where(PromotionCode.code == text).with_for_update()
    promotion = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if promotion is None:
        raise NotFoundError("promotion_code", text)
    coupon = select(Coupon).where(Coupon.id == promotion.coupon_id).with_for_update()
    promotion.coupon = (await session.scalars(coupon.execution_options(populate_existing=True))).one()
    return promotion


def terms_of(coupon: Coupon) -> CouponTerms:
    """Return the terms that a row holds."""
    return CouponTerms(
        name=coupon.name,
        percent=coupon.percent,
        amount_minor=coupon.amount_minor,
        currency=coupon.currency,
        duration=Duration(coupon.duration),
        count=coupon.count,
        scope=LineScope(coupon.scope),
        plan_codes=tuple(coupon.plan_codes),
        product_codes=tuple(coupon.product_codes),
        max_redemptions=coupon.max_redemptions,
        redeem_until=coupon.redeem_until,
    )


def facts(coupon: Coupon) -> dict[str, Any]:
    """Return what the audit log keeps of a coupon."""
    return {"code": coupon.code, **terms_of(coupon).as_dict()}


def _columns(terms: CouponTerms) -> dict[str, Any]:
    return {
        **{name: getattr(terms, name) for name in CouponTerms.__dataclass_fields__},
        "name": clean_name(terms.name),
        "duration": str(terms.duration),
        "scope": str(terms.scope),
        "plan_codes": list(terms.plan_codes),
        "product_codes": list(terms.product_codes),
    }


async def _check(session: AsyncSession, terms: CouponTerms) -> None:
    check_terms(terms)
    problems = [
        *await _unknown(session, Plan.code, terms.plan_codes, field="plans", kind="plan"),
        *await _unknown(session, ApiProduct.code, terms.product_codes, field="api_products", kind="API product"),
    ]
    if problems:
        first, *more = problems
        raise ValidationFailedError(first.field, first.message, *more)


async def _unknown(
    session: AsyncSession, column: InstrumentedAttribute[str], codes: Sequence[str], *, field: str, kind: str
) -> list[Problem]:
    if not codes:
        return []
    known = set(await session.scalars(select(column).where(column.in_(codes))))
    return [
        Problem(f"{field}[{place}]", f"there is no {kind} {code}")
        for place, code in enumerate(codes)
        if code not in known
    ]


async def _add(session: AsyncSession, row: Coupon | PromotionCode, *, kind: str, code: str) -> None:
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise CodeTakenError(kind, code) from error


async def _record(
    session: AsyncSession,
    row: Coupon | PromotionCode,
    action: str,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="coupon" if isinstance(row, Coupon) else "promotion_code",
        entity_id=row.id,
        before=before,
        after=after,
        now=now,
    )
