"""What an account may buy, on which terms; nothing here commits or asks Stripe."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.discounts.coupons import locked_promotion_code
from control_plane.billing.discounts.founding import offer_for_buyer
from control_plane.billing.discounts.redemption_rules import check_limits, check_minimum, costs_something
from control_plane.billing.discounts.refusals import (
    CodeUsedBeforeError,
    CouponCurrencyDiffersError,
    CouponPlanDiffersError,
    NotFirstTimeError,
    UsedUpError,
)
from control_plane.billing.discounts.tables import Coupon, DiscountRow, FirstPayment, PromotionCode
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import Money
from control_plane.stripe_sync.catalog.tables import StripePush
from control_plane.stripe_sync.subscriptions.coupons import coupon_terms
from control_plane.stripe_sync.subscriptions.lookups import prices_of_versions
from control_plane.stripe_sync.subscriptions.model import PriceAtStripe
from control_plane.stripe_sync.subscriptions.refusals import (
    HeldAlreadyError,
    NotBilledByStripeError,
    OneDiscountError,
    PlanNotAtStripeError,
)
from control_plane.stripe_sync.subscriptions.tables import OPEN_CHECKOUT_STATES, StripeCheckout
from control_plane.subscriptions.beginnings import accounts_new_to
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.offers import offered_version
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase

LIFETIME: Final = timedelta(hours=2)
HOUR: Final = timedelta(hours=1)
# Stripe takes no end of a trial that is nearer than two days; shorter ones are given in days
SHORTEST_WITH_END_DAYS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What is bought. `trial_ends_at` or `trial_days`; at most one of the discounts, whose coupon is named."""

    version: PlanVersion
    prices: Sequence[PriceAtStripe]
    trial_ends_at: datetime | None
    trial_days: int | None
    coupon_id: str | None
    promotion_code_id: str | None
    founding_offer_id: str | None

    @property
    def on_trial(self) -> bool:
        return self.trial_ends_at is not None or self.trial_days is not None


async def purchase(
    session: AsyncSession,
    account: Account,
    *,
    plan_code: str,
    trial: bool | None,
    promotion_code: str | None,
    allow_unlisted: bool,
    now: datetime,
) -> Purchase:
    """Return what an account, locked, buys with a plan.

    Raises:
        NotFoundError, PlanIsAddOnError, PlanNotOnSaleError, PlanUnlistedError, CurrencyDiffersError,
        NotBilledByStripeError, PlanNotAtStripeError, HeldAlreadyError, OneDiscountError, CouponNotAtStripeError,
        RedemptionRefusedError. ValidationFailedError: the plan has no trial.
    """
    version = await offered_version(session, plan_code, account=account, allow_unlisted=allow_unlisted)
    if version.billed_by != "stripe":
        raise NotBilledByStripeError(
            f"Plan {plan_code}", "subscribe the account to it, there is nothing to check out"
        )
    prices = await prices_at_stripe(session, version, currency=account.currency)
    await require_free(session, account.id, version)
    product_id = version.plan.api_product_id
    if trial is None:
        trial = version.trial_days is not None and bool(
            await accounts_new_to(session, [account.id], api_product_id=product_id)
        )
    if trial and version.trial_days is None:
        raise ValidationFailedError("trial", f"plan {plan_code} has no trial")
    days = version.trial_days if trial else None
    with_end = days is not None and days >= SHORTEST_WITH_END_DAYS
    discount = await _discount(session, account, version, promotion_code, now=now)
    return Purchase(
        version=version,
        prices=prices,
        trial_ends_at=_trial_end(now, days) if with_end and days is not None else None,
        trial_days=None if with_end else days,
        **discount,
    )


async def prices_at_stripe(
    session: AsyncSession, version: PlanVersion, *, currency: str
) -> Sequence[PriceAtStripe]:
    """Return the prices that Stripe has of a version.

    Raises:
        PlanNotAtStripeError: none, or not all of them yet.
    """
    found = await prices_of_versions(session, [version.id], currency=currency)
    if version.id in found:
        return found[version.id]
    push = await session.get(StripePush, version.id)
    refused = push is not None and push.state == "refused"
    raise PlanNotAtStripeError(version.plan.code, push.problem if push is not None and refused else None)


async def require_free(session: AsyncSession, account_id: str, version: PlanVersion) -> None:
    """Raise HeldAlreadyError where the account has another subscription to the product that it pays for.

    One that costs nothing ends when the checkout is completed.
    """
    statement = select(Subscription).where(
        Subscription.account_id == account_id,
        Subscription.api_product_id == version.plan.api_product_id,
        Subscription.status.not_in(sorted(OVER)),
    )
    held = await session.scalar(statement)
    if held is None:
        return
    code = version.plan.api_product.code
    if held.billed_by == "stripe":
        raise HeldAlreadyError(held.id, code, at_stripe=True)
    last = select(SubscriptionPhase.plan_version_id).where(
        SubscriptionPhase.subscription_id == held.id, SubscriptionPhase.applied_at.is_not(None)
    )
    running = await session.scalar(last.order_by(SubscriptionPhase.starts_at.desc()).limit(1))
    if running is not None and costs_something((await plan_versions(session, [running]))[running]):
        raise HeldAlreadyError(held.id, code, at_stripe=False)


def _trial_end(now: datetime, days: int) -> datetime:
    """Return a full hour that leaves all the days, whenever the checkout is completed."""
    at = now + LIFETIME
    whole = at if floor_hour(at) == at else floor_hour(at) + HOUR
    return whole + timedelta(days=days)


async def _discount(
    session: AsyncSession, account: Account, version: PlanVersion, code: str | None, *, now: datetime
) -> dict[str, Any]:
    promised = await _promised(session, account.id, StripeCheckout.founding_offer_id.is_not(None))
    offer = None
    if costs_something(version):
        offer = await offer_for_buyer(session, account.id, promised=promised, now=now)
    if offer is not None and code is not None:
        raise OneDiscountError(code.strip().upper())
    promotion = None
    if code is not None:
        promotion = await locked_promotion_code(session, code)
        await _check_code(session, promotion, account, version, now=now)
    coupon: Coupon | None = None
    if offer is not None:
        coupon = offer.coupon
    elif promotion is not None:
        coupon = promotion.coupon
    if coupon is not None:
        coupon_terms(coupon, version.interval)
    return {
        "coupon_id": None if coupon is None else coupon.id,
        "promotion_code_id": None if promotion is None else promotion.id,
        "founding_offer_id": None if offer is None else offer.id,
    }


async def _check_code(
    session: AsyncSession, promotion: PromotionCode, account: Account, version: PlanVersion, *, now: datetime
) -> None:
    check_limits(promotion, kind="promotion_code", now=now)
    check_limits(promotion.coupon, kind="coupon", now=now)
    promised = await _promised(session, account.id, StripeCheckout.promotion_code_id == promotion.id)
    if promotion.max_redemptions is not None and promotion.redemptions + promised >= promotion.max_redemptions:
        raise UsedUpError("promotion_code", promotion.code, promotion.max_redemptions)
    used = select(DiscountRow.id).where(
        DiscountRow.promotion_code_id == promotion.id, DiscountRow.account_id == account.id
    )
    if await session.scalar(used) is not None:
        raise CodeUsedBeforeError(promotion.code)
    if promotion.first_time_only and await session.get(FirstPayment, account.id) is not None:
        raise NotFirstTimeError(promotion.code)
    if promotion.minimum_minor is not None:
        check_minimum(promotion, version, currency=account.currency)
    check_coupon(promotion.coupon, [version], currency=account.currency)


def check_coupon(coupon: Coupon, versions: Sequence[PlanVersion], *, currency: str) -> None:
    """Raise CouponCurrencyDiffersError or CouponPlanDiffersError where it is for others than these versions."""
    if coupon.currency is not None and coupon.currency != currency:
        amount = Money(coupon.amount_minor or 0, coupon.currency)
        raise CouponCurrencyDiffersError(coupon.code, amount=amount, currency=currency)
    products = {version.plan.api_product.code for version in versions}
    if coupon.product_codes and products.isdisjoint(coupon.product_codes):
        raise CouponPlanDiffersError(coupon.code, "product", coupon.product_codes)
    if coupon.plan_codes and {version.plan.code for version in versions}.isdisjoint(coupon.plan_codes):
        raise CouponPlanDiffersError(coupon.code, "plan", coupon.plan_codes)


async def _promised(session: AsyncSession, account_id: str, what: ColumnElement[bool]) -> int:
    """Return in how many checkouts of others, still open, something is promised."""
    statement = select(func.count()).where(
        what, StripeCheckout.account_id != account_id, StripeCheckout.state.in_(OPEN_CHECKOUT_STATES)
    )
    return await session.scalar(statement) or 0
