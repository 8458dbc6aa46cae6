"""Putting coupons onto subscriptions, and taking discounts away. Nothing here commits.

The account's row is locked first, as everywhere, then the promotion code, then its coupon: so a code's and a
coupon's limits hold however many redeem them at once.
"""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.tables import Account
from control_plane.billing.discounts.coupons import locked_coupon, locked_promotion_code
from control_plane.billing.discounts.queries import discount_row, discounts_of
from control_plane.billing.discounts.redemption_rules import (
    check_limits,
    check_minimum,
    check_subscription,
    ends_at,
    holds_from,
)
from control_plane.billing.discounts.refusals import (
    AlreadyDiscountedError,
    CodeUsedBeforeError,
    DiscountNeverHoldsError,
    NotFirstTimeError,
)
from control_plane.billing.discounts.tables import Coupon, DiscountRow, DiscountUse, FirstPayment, PromotionCode
from control_plane.catalog.queries import plan_versions
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.records import SubscriptionOverError
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timeline as timeline_of
from gateway_contract.records import AccountStatus

Starts = Literal["now", "next_period"]


async def redeem_coupon(
    session: AsyncSession,
    *,
    subscription_id: str,
    coupon_code: str,
    starts: Starts | None = None,
    actor: str,
    now: datetime,
) -> DiscountRow:
    """Put a coupon onto a subscription.

    `starts`: whether the discount holds for the running billing period, or from the next one on. None: for the
    running one where the subscription, or its plan, began at `now`; else from the next one on. On trial it holds
    from the first period that is billed. What was billed before is never changed.

    Raises:
        NotFoundError, SubscriptionOverError, AccountDeletedError. RedemptionRefusedError: see `refusals`.
    """
    account, timeline = await _locked(session, subscription_id, now)
    coupon = await locked_coupon(session, coupon_code)
    check_limits(coupon, kind="coupon", now=now)
    return await _give(session, account, timeline, coupon, source="coupon", starts=starts, actor=actor, now=now)


async def redeem_promotion_code(
    session: AsyncSession,
    *,
    subscription_id: str,
    code: str,
    starts: Starts | None = None,
    actor: str,
    now: datetime,
) -> DiscountRow:
    """Put the coupon of a promotion code onto a subscription, as `redeem_coupon` does. Once for each account.

    Raises:
        NotFoundError, SubscriptionOverError, AccountDeletedError. RedemptionRefusedError: see `refusals`.
    """
    account, timeline = await _locked(session, subscription_id, now)
    promotion = await locked_promotion_code(session, code)
    check_limits(promotion, kind="promotion_code", now=now)
    check_limits(promotion.coupon, kind="coupon", now=now)
    used = await session.scalar(
        select(DiscountRow.id).where(
            DiscountRow.promotion_code_id == promotion.id, DiscountRow.account_id == account.id
        )
    )
    if used is not None:
        raise CodeUsedBeforeError(promotion.code)
    if promotion.first_time_only and await session.get(FirstPayment, account.id) is not None:
        raise NotFirstTimeError(promotion.code)
    if promotion.minimum_minor is not None:
        await _check_minimum(session, promotion, account, timeline, now)
    promotion.redemptions += 1
    return await _give(
        session,
        account,
        timeline,
        promotion.coupon,
        source="promotion_code",
        promotion=promotion,
        starts=starts,
        actor=actor,
        now=now,
    )


async def remove_discount(
    session: AsyncSession, *, subscription_id: str, discount_id: str, actor: str, now: datetime
) -> DiscountRow:
    """Take a discount away. One that took something off goes on to the end of the running billing period.

    One that did not is gone at once. Neither is redeemed less often for it. Repeating changes nothing.

    Raises:
        NotFoundError: the subscription has no such discount.
    """
    row = await session.get(DiscountRow, discount_id, with_for_update=True, populate_existing=True)
    if row is None or row.subscription_id != subscription_id:
        raise NotFoundError("discount", discount_id)
    if row.removed_at is not None or (row.ends_at is not None and row.ends_at <= now):
        return await discount_row(session, discount_id)
    before = _facts(row)
    used = select(DiscountUse.discount_id).where(DiscountUse.discount_id == discount_id).limit(1)
    if await session.scalar(used) is None:
        row.removed_at = now
    else:
        row.ends_at = now
    await session.flush()
    await _told(session, row, "discount.removed", before=before, actor=actor, now=now)
    return await discount_row(session, discount_id)


async def add_discount(
    session: AsyncSession,
    *,
    timeline: Timeline,
    coupon: Coupon,
    source: str,
    promotion_code_id: str | None = None,
    begins: datetime,
    actor: str,
    now: datetime,
) -> DiscountRow:
    """Write a discount whose coupon is locked and may be given, from a billing period on; counts the redemption.

    Raises:
        DiscountNeverHoldsError: the subscription ends before.
    """
    if timeline.ends_at is not None and timeline.ends_at <= begins:
        raise DiscountNeverHoldsError(timeline.ends_at)
    coupon.redemptions += 1
    row = DiscountRow(
        id=new_id("dsc", now),
        subscription_id=timeline.subscription_id,
        account_id=timeline.account_id,
        coupon_id=coupon.id,
        promotion_code_id=promotion_code_id,
        source=source,
        holds_from=begins,
        ends_at=ends_at(timeline, coupon, begins, now),
        created_at=now,
    )
    session.add(row)
    await session.flush()
    await _told(session, row, "discount.given", before=None, actor=actor, now=now)
    return row


async def _locked(session: AsyncSession, subscription_id: str, now: datetime) -> tuple[Account, Timeline]:
    found = await timeline_of(session, subscription_id)
    account = await session.get_one(
        Account, found.account_id, with_for_update={"key_share": True}, populate_existing=True
    )
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account.id)
    timeline = await timeline_of(session, subscription_id)
    if timeline.status in OVER or (timeline.ends_at is not None and timeline.ends_at <= now):
        raise SubscriptionOverError(subscription_id)
    return account, timeline


async def _give(
    session: AsyncSession,
    account: Account,
    timeline: Timeline,
    coupon: Coupon,
    *,
    source: str,
    promotion: PromotionCode | None = None,
    starts: Starts | None,
    actor: str,
    now: datetime,
) -> DiscountRow:
    versions = await plan_versions(session, timeline.version_ids)
    check_subscription(coupon, timeline, versions, currency=account.currency, now=now)
    for held in await discounts_of(session, timeline.subscription_id):
        if held.row.coupon_id == coupon.id and not held.is_over(now):
            raise AlreadyDiscountedError(coupon.code, held.row.id)
    if starts is None:
        at = floor_ms(now)
        fresh = timeline.started_at == at or any(phase.starts_at == at for phase in timeline.phases)
        starts = "now" if fresh else "next_period"
    row = await add_discount(
        session,
        timeline=timeline,
        coupon=coupon,
        source=source,
        promotion_code_id=promotion.id if promotion else None,
        begins=holds_from(timeline, starts, now),
        actor=actor,
        now=now,
    )
    return await discount_row(session, row.id)


async def _check_minimum(
    session: AsyncSession, promotion: PromotionCode, account: Account, timeline: Timeline, now: datetime
) -> None:
    phase = timeline.phase_at(now) or timeline.phases[-1]
    versions = await plan_versions(session, [phase.plan_version_id])
    check_minimum(promotion, versions[phase.plan_version_id], currency=account.currency)


async def _told(
    session: AsyncSession,
    row: DiscountRow,
    action: str,
    *,
    before: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="discount",
        entity_id=row.id,
        before=before,
        after=_facts(row),
        now=now,
    )
    await enqueue(session, topic=Topic.SUBSCRIPTION_CHANGED, entity_id=row.subscription_id, now=now)


def _facts(row: DiscountRow) -> dict[str, Any]:
    return {
        "subscription_id": row.subscription_id,
        "coupon_id": row.coupon_id,
        "promotion_code_id": row.promotion_code_id,
        "source": row.source,
        "holds_from": row.holds_from.isoformat(),
        "ends_at": None if row.ends_at is None else row.ends_at.isoformat(),
        "removed_at": None if row.removed_at is None else row.removed_at.isoformat(),
    }
