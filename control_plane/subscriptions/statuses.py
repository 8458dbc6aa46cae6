"""Pausing and resuming, payments that are overdue and arrive. Nothing here commits."""

from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_ms
from control_plane.subscriptions.holds import forget_hold
from control_plane.subscriptions.model import Status, check_transition
from control_plane.subscriptions.phases import ahead, rewrite
from control_plane.subscriptions.records import facts, note_change, own_subscription, record
from control_plane.subscriptions.segments import with_kind
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import PhaseKind
from control_plane.subscriptions.trials import convert

NO_PAUSE = "cancel it at period end, and check out anew when it is wanted again"
STRIPE_KNOWS = "whether it is paid for, Stripe says"


async def pause(session: AsyncSession, *, subscription_id: str, actor: str, now: datetime) -> Subscription:
    """Let a subscription rest: no calls, no charges, until it is resumed or ends. Paused already: nothing changes.

    Planned changes and a cancellation at period end stay planned.

    Raises:
        NotFoundError, SubscriptionOverError, BilledByStripeError. TransitionRefusedError: it is in its trial.
    """
    now = floor_ms(now)
    _, subscription = await own_subscription(session, subscription_id, now, instead=NO_PAUSE)
    if subscription.status != Status.PAUSED:
        await _rest(session, subscription, Status.PAUSED, actor=actor, now=now)
    return subscription


async def resume(session: AsyncSession, *, subscription_id: str, actor: str, now: datetime) -> Subscription:
    """Let a paused subscription go on, with the billing periods that it had. Not paused: nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError, BilledByStripeError.
    """
    now = floor_ms(now)
    _, subscription = await own_subscription(session, subscription_id, now, instead=NO_PAUSE)
    if subscription.status == Status.PAUSED:
        await _rest(session, subscription, Status.ACTIVE, actor=actor, now=now)
    return subscription


async def change_status(
    session: AsyncSession,
    *,
    subscription_id: str,
    status: Literal["active", "past_due", "paused"],
    actor: str,
    now: datetime,
) -> Subscription:
    """Move a live subscription to another live status: a payment is overdue or arrived, or somebody pauses it.

    `active` resumes a paused subscription and ends a trial early. The status it has already changes nothing.

    Raises:
        NotFoundError, SubscriptionOverError, BilledByStripeError.
        TransitionRefusedError: the status machine has no such step.
    """
    now = floor_ms(now)
    _, subscription = await own_subscription(session, subscription_id, now, instead=STRIPE_KNOWS)
    before, after = Status(subscription.status), Status(status)
    if before is after:
        return subscription
    if Status.PAUSED in {before, after}:
        await _rest(session, subscription, after, actor=actor, now=now)
    elif before is Status.TRIALING and after is Status.ACTIVE:
        await convert(session, subscription, actor=actor, now=now)
    else:
        known = facts(subscription)
        subscription.status = check_transition(before, after).value
        if before is Status.PAST_DUE:
            await forget_hold(session, subscription_id)
        await record(session, subscription, action=f"subscription.{after}", before=known, actor=actor, now=now)
    return subscription


async def _rest(
    session: AsyncSession, subscription: Subscription, status: Status, *, actor: str, now: datetime
) -> None:
    """Pause or resume (`active`) what is planned from `now` on."""
    before = facts(subscription)
    if subscription.status == Status.PAST_DUE:
        await forget_hold(session, subscription.id)
    subscription.status = check_transition(subscription.status, status).value
    kind = PhaseKind.PAUSED if status is Status.PAUSED else PhaseKind.PAID
    await rewrite(session, subscription, with_kind(ahead(subscription, now), kind), at=now, now=now)
    action = "subscription.paused" if status is Status.PAUSED else "subscription.resumed"
    await note_change(session, subscription, action=action, before=before, actor=actor, now=now)
