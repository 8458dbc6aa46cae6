"""Whether a coupon may be put onto a subscription, and for which billing periods it then holds. Pure."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal

from control_plane.billing.discounts.model import Duration
from control_plane.billing.discounts.refusals import (
    ArchivedError,
    BelowMinimumError,
    CouponCurrencyDiffersError,
    CouponPlanDiffersError,
    ExpiredError,
    UsedUpError,
)
from control_plane.billing.discounts.tables import Coupon, PromotionCode
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.money import Money, round_minor
from control_plane.foundation.period import MONTHS, period_containing
from control_plane.subscriptions.timeline import Timeline


def check_limits(
    given: Coupon | PromotionCode, *, kind: Literal["coupon", "promotion_code"], now: datetime
) -> None:
    """Raise ArchivedError, ExpiredError or UsedUpError where it is not given any more; its row is locked."""
    if given.archived_at is not None:
        raise ArchivedError(kind, given.code)
    if given.redeem_until is not None and given.redeem_until <= now:
        raise ExpiredError(kind, given.code, given.redeem_until)
    if given.max_redemptions is not None and given.redemptions >= given.max_redemptions:
        raise UsedUpError(kind, given.code, given.redemptions)


def check_subscription(
    coupon: Coupon, timeline: Timeline, versions: Mapping[str, PlanVersion], *, currency: str, now: datetime
) -> None:
    """Raise where a coupon has nothing to do with a subscription: another currency, API product or plan.

    A plan that the subscription is on, or is planned to be on, will do, and so will one of its add-ons.

    Raises:
        CouponCurrencyDiffersError, CouponPlanDiffersError.
    """
    if coupon.currency is not None and coupon.currency != currency:
        amount = Money(coupon.amount_minor or 0, coupon.currency)
        raise CouponCurrencyDiffersError(coupon.code, amount=amount, currency=currency)
    products = {version.plan.api_product.code for version in versions.values()}
    if coupon.product_codes and products.isdisjoint(coupon.product_codes):
        raise CouponPlanDiffersError(coupon.code, "product", coupon.product_codes)
    ahead = {
        version_id
        for phase in timeline.phases
        if phase.ends_at is None or phase.ends_at > now
        for version_id in (phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons))
    }
    plans = {versions[version_id].plan.code for version_id in ahead}
    if coupon.plan_codes and plans.isdisjoint(coupon.plan_codes):
        raise CouponPlanDiffersError(coupon.code, "plan", coupon.plan_codes)


def check_minimum(promotion: PromotionCode, version: PlanVersion, *, currency: str) -> None:
    """Raise BelowMinimumError where the plan costs less for a whole period, before use, than the code asks for."""
    costs = Money(fixed_minor(version, currency), currency)
    minimum = Money(promotion.minimum_minor or 0, promotion.minimum_currency or currency)
    if costs.currency != minimum.currency or costs.amount_minor < minimum.amount_minor:
        raise BelowMinimumError(promotion.code, costs=costs, minimum=minimum)


def fixed_minor(version: PlanVersion, currency: str) -> int:
    """Return what a version costs for a whole billing period before any use."""
    flat = (price for price in version.prices if price.model == "flat" and price.currency == currency)
    return sum(round_minor(Decimal(price.params["amount"]), currency) for price in flat)


def costs_something(version: PlanVersion) -> bool:
    """Say whether a version has a price other than nothing per billing period."""
    return any(price.model != "flat" or Decimal(price.params["amount"]) > 0 for price in version.prices)


def on_trial(timeline: Timeline, now: datetime) -> bool:
    """Say whether a trial is going on: nothing is billed before it ends."""
    return timeline.trial_ends_at is not None and timeline.trial_ends_at > now


def holds_from(timeline: Timeline, starts: Literal["now", "next_period"], now: datetime) -> datetime:
    """Return the start of the first billing period that a discount holds for; on trial, of the running one."""
    current = timeline.period_at(now)
    return current.start if starts == "now" or on_trial(timeline, now) else current.end


def ends_at(timeline: Timeline, coupon: Coupon, begins: datetime, now: datetime) -> datetime | None:
    """Return before when a billing period must begin for a discount of so many months to hold for it.

    None for other durations, and on trial: a trial can end sooner or later than it was to (see `months_end`).
    """
    if coupon.duration != Duration.MONTHS or coupon.count is None or on_trial(timeline, now):
        return None
    return months_end(
        coupon.count,
        begins=begins,
        anchor_at=timeline.anchor_at,
        interval=timeline.interval,
        time_zone=timeline.time_zone,
    )


def months_end(months: int, *, begins: datetime, anchor_at: datetime, interval: str, time_zone: str) -> datetime:
    """Return the end of the billing periods that begin within so many months of the first one.

    12 months are 12 monthly periods, or a yearly one. The first is the one that `begins`, or where that was in a
    trial, the one at the anchor.
    """
    end = max(begins, anchor_at)
    for _ in range(-(-months // MONTHS[interval])):
        end = period_containing(end, anchor_at, interval, time_zone).end
    return end
