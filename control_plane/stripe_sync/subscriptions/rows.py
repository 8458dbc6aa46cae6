"""Writing down what Stripe shows of a subscription. Nothing here commits."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.stripe_sync.subscriptions.coupons import coupons_of_ours
from control_plane.stripe_sync.subscriptions.model import (
    DiscountSeen,
    Holding,
    PriceAtStripe,
    SubscriptionState,
    hour_here,
)
from control_plane.stripe_sync.subscriptions.steps import Kind, Seen
from control_plane.stripe_sync.subscriptions.tables import (
    StripeChange,
    StripeDiscount,
    StripeSpan,
    StripeSubscription,
    StripeSubscriptionItem,
)
from control_plane.subscriptions.queries import phase_at
from control_plane.subscriptions.tables import Subscription


async def write_row(
    session: AsyncSession,
    row: StripeSubscription | None,
    subscription: Subscription,
    state: SubscriptionState,
    held: Holding | None,
    *,
    now: datetime,
) -> StripeSubscription:
    """Write what Stripe says of a subscription over what it said before; a new one gets its row."""
    if row is None:
        row = StripeSubscription(
            subscription_id=subscription.id,
            stripe_id=state.stripe_id,
            account_id=subscription.account_id,
            customer_id=state.customer_id,
            created_at=now,
        )
        session.add(row)
    row.status = state.status
    row.currency = state.currency
    row.plan_version_id = None if held is None else held.plan_version_id
    row.started_at = state.started_at
    row.billing_cycle_anchor = state.billing_cycle_anchor
    row.current_period_start = state.period_start
    row.current_period_end = state.period_end
    row.trial_end = state.trial_end
    row.cancel_at_period_end = state.cancel_at_period_end
    row.cancel_at = state.cancel_at
    row.canceled_at = state.canceled_at
    row.ended_at = state.ended_at
    row.schedule_id = state.schedule_id
    row.latest_invoice_id = state.latest_invoice_id
    row.pending_update_until = state.pending_update_until
    row.automatic_tax = state.automatic_tax
    row.problem = "" if held is not None else "its items are no plan of ours"
    row.read_at = now
    await session.flush()
    return row


async def note_items(session: AsyncSession, state: SubscriptionState, known: Mapping[str, PriceAtStripe]) -> None:
    """Write the items that a subscription has now, in the place of those it had."""
    of_subscription = StripeSubscriptionItem.stripe_id == state.stripe_id
    present = {
        row.item_id: row for row in await session.scalars(select(StripeSubscriptionItem).where(of_subscription))
    }
    for item in state.items:
        row = present.pop(item.item_id, None)
        if row is None:
            row = StripeSubscriptionItem(item_id=item.item_id, stripe_id=state.stripe_id)
            session.add(row)
        price = known.get(item.price_id)
        row.price_id, row.quantity = item.price_id, item.quantity
        row.plan_version_id = None if price is None else price.plan_version_id
        row.current_period_start, row.current_period_end = item.period_start, item.period_end
    for gone in present.values():
        await session.delete(gone)
    await session.flush()


async def note_discounts(
    session: AsyncSession, subscription_id: str, state: SubscriptionState, *, now: datetime
) -> None:
    """Write the discounts that a subscription has now; those it has no more are kept with when that was seen."""
    of_subscription = StripeDiscount.subscription_id == subscription_id
    present = {
        row.discount_id: row for row in await session.scalars(select(StripeDiscount).where(of_subscription))
    }
    ours = await coupons_of_ours(session, {one.coupon_id for one in state.discounts})
    for one in state.discounts:
        row = present.pop(one.discount_id, None)
        if row is None:
            row = _discount(subscription_id, one, ours.get(one.coupon_id))
            session.add(row)
        row.ends_at, row.removed_at = one.ends_at, None
    for gone in present.values():
        gone.removed_at = gone.removed_at or now
    await session.flush()


def _discount(subscription_id: str, seen: DiscountSeen, coupon_id: str | None) -> StripeDiscount:
    return StripeDiscount(
        discount_id=seen.discount_id,
        subscription_id=subscription_id,
        item_id=seen.item_id,
        stripe_coupon_id=seen.coupon_id,
        coupon_id=coupon_id,
        percent=seen.percent,
        amount_minor=seen.amount_minor if seen.percent is None else None,
        duration=seen.duration,
        starts_at=seen.starts_at,
    )


async def note_spans(
    session: AsyncSession,
    seen: Seen,
    *,
    subscription: Subscription,
    period_before: datetime | None,
    now: datetime,
) -> None:
    """Note from when on Stripe has the present plan version, and the one that is planned.

    `period_before`: where the running period began when the subscription was read before; None: never.
    """
    state = seen.state
    spans = list(
        await session.scalars(
            select(StripeSpan).where(StripeSpan.subscription_id == subscription.id).order_by(StripeSpan.starts_at)
        )
    )
    planned_at = None if state.planned is None else state.planned.starts_at
    if planned_at is not None and planned_at <= now:
        return  # it is being switched at this moment, and its span is there already
    for span in [span for span in spans if span.starts_at > now]:
        if (span.starts_at, span.plan_version_id) != (planned_at, seen.later and seen.later.plan_version_id):
            await session.delete(span)
            spans.remove(span)
    await session.flush()
    present = [span for span in spans if span.starts_at <= now]
    if seen.held is not None and (not present or present[-1].plan_version_id != seen.held.plan_version_id):
        starts_at = state.started_at
        if present:
            moved = period_before is not None and period_before != state.period_start
            starts_at = state.period_start if moved else await _changed_at(session, subscription.id, now)
            starts_at = max(starts_at, present[-1].starts_at)
        if present and present[-1].starts_at == starts_at:
            present[-1].plan_version_id = seen.held.plan_version_id
        else:
            _span(
                session,
                subscription,
                starts_at,
                seen.held.plan_version_id,
                _ours_from(subscription, seen.held, now),
            )
    later_id = None if seen.later is None else seen.later.plan_version_id
    held_id = None if seen.held is None else seen.held.plan_version_id
    if planned_at is not None and later_id is not None and later_id != held_id and _lack(spans, planned_at):
        _span(session, subscription, planned_at, later_id, hour_here(planned_at))
    await session.flush()


def _lack(spans: list[StripeSpan], at: datetime) -> bool:
    return all(span.starts_at != at for span in spans)


def _span(
    session: AsyncSession, subscription: Subscription, starts_at: datetime, version_id: str, ours_from: datetime
) -> None:
    session.add(
        StripeSpan(
            subscription_id=subscription.id, starts_at=starts_at, plan_version_id=version_id, ours_from=ours_from
        )
    )


def _ours_from(subscription: Subscription, held: Holding, now: datetime) -> datetime:
    phase = phase_at(subscription, now)
    same = phase is not None and phase.plan_version_id == held.plan_version_id
    return phase.starts_at if same and phase is not None else now


async def _changed_at(session: AsyncSession, subscription_id: str, now: datetime) -> datetime:
    """Return Stripe's moment of a change that was just seen: as it was asked for, else as it was seen."""
    statement = (
        select(StripeChange.wanted)
        .where(
            StripeChange.subscription_id == subscription_id,
            StripeChange.kind == Kind.UPDATE,
            StripeChange.state.in_(["asked", "pending"]),
        )
        .order_by(StripeChange.id.desc())
        .limit(1)
    )
    wanted = await session.scalar(statement)
    asked = None if wanted is None else wanted.get("proration_at")
    return now.replace(microsecond=0) if asked is None else min(datetime.fromisoformat(asked), now)
