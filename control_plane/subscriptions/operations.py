"""Subscribing and ending: now, at period end, and not after all. Nothing here commits.

Every operation locks the account's row first (see `bump_gateway_version`), then the subscription: nobody waits
in a circle. Moments are cut to whole milliseconds, the gateway's resolution.
"""

from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import bump_gateway_version
from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.subscriptions.beginnings import accounts_new_to, anchor_of, new_subscription, trial_end
from control_plane.subscriptions.model import OVER, Status, check_transition
from control_plane.subscriptions.offers import offered_version, require_change, require_own
from control_plane.subscriptions.phases import ahead, rewrite
from control_plane.subscriptions.plan_changes import move
from control_plane.subscriptions.queries import period_end
from control_plane.subscriptions.records import (
    begin_phases,
    end_in_time,
    facts,
    locked_subscription,
    note_change,
    own_subscription,
    record,
    tell_billing,
)
from control_plane.subscriptions.segments import Segment
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import PhaseKind


class AlreadySubscribedError(ConflictError):
    """An account has at most one live subscription for each API product."""

    def __init__(self, subscription_id: str, product_code: str) -> None:
        super().__init__(
            "already_subscribed",
            f"The account already has subscription {subscription_id} to {product_code}; change its plan instead.",
        )


async def subscribe(
    session: AsyncSession,
    *,
    account_id: str,
    plan_code: str,
    anchor_at: datetime | None = None,
    anchor_day: int | None = None,
    trial: bool | None = None,
    allow_unlisted: bool = False,
    actor: str,
    now: datetime,
) -> Subscription:
    """Put an account on the version of a plan that is on sale, from now on.

    Billing periods begin at `anchor_at`, a full hour, or at midnight of `anchor_day` (1 to 31) in the account's
    time zone, in which the first one has begun before `now` and is paid in part; by default in the hour that
    holds `now`. After a trial they begin where it ends. `trial`: the plan's, again if need be (True), none
    (False), or (None) the plan's if the account is new to the API product. `allow_unlisted` is an
    administrator's word: it permits hidden plans and plans sold by quote.

    Raises:
        NotFoundError: no such account or plan. PlanIsAddOnError, PlanNotOnSaleError, PlanUnlistedError,
        CurrencyDiffersError, AlreadySubscribedError, AccountDeletedError, BoughtAtStripeError.
        ValidationFailedError: `anchor_at`, `anchor_day` or `trial` is wrong, or they do not go together.
    """
    now = floor_ms(now)
    account = await bump_gateway_version(session, account_id, now)
    version = await offered_version(session, plan_code, account=account, allow_unlisted=allow_unlisted)
    require_own(version)
    product = version.plan.api_product
    await _require_free(session, account_id=account_id, product=product, now=now)
    if trial is None:
        trial = version.trial_days is not None and bool(
            await accounts_new_to(session, [account_id], api_product_id=product.id)
        )
    trial_ends_at = trial_end(version, now) if trial else None
    anchor_at = anchor_of(
        anchor_at=anchor_at,
        anchor_day=anchor_day,
        trial_ends_at=trial_ends_at,
        time_zone=account.time_zone,
        now=now,
    )
    subscription = new_subscription(
        account_id,
        version,
        anchor_at=anchor_at,
        time_zone=account.time_zone,
        trial_ends_at=trial_ends_at,
        now=now,
    )
    session.add(subscription)
    await session.flush()
    await record(session, subscription, action="subscription.started", before=None, actor=actor, now=now)
    await tell_billing(session, subscription, now)
    return subscription


async def _require_free(session: AsyncSession, *, account_id: str, product: ApiProduct, now: datetime) -> None:
    """Raises AlreadySubscribedError; a subscription whose end has come, and was not noted yet, is ended."""
    taken = await session.scalar(
        select(Subscription.id).where(
            Subscription.account_id == account_id,
            Subscription.api_product_id == product.id,
            Subscription.status.not_in(sorted(OVER)),
        )
    )
    if taken is None:
        return
    found = await locked_subscription(session, taken)
    if not end_in_time(session, found, now):
        raise AlreadySubscribedError(taken, product.code)
    begin_phases(session, found, now)
    await session.flush()
    await tell_billing(session, found, now)


async def change_plan(
    session: AsyncSession,
    *,
    subscription_id: str,
    plan_code: str,
    effective_at: datetime | None = None,
    allow_unlisted: bool = False,
    actor: str,
    now: datetime,
) -> Subscription:
    """Move a subscription to the version of a plan that is on sale, now (None) or at a later moment.

    Replaces any later change that was planned before. Moving to the version that is in force then only takes
    those back. Moving to the same plan takes the newest version. A trial goes on, and a pause. (`change` of
    `plan_changes` finds out whether now or at period end is right.)

    Raises:
        NotFoundError, SubscriptionOverError, PlanIsAddOnError, PlanNotOnSaleError, PlanUnlistedError,
        CurrencyDiffersError, ProductDiffersError, IntervalDiffersError,
        BillingDiffersError. ValidationFailedError: `effective_at` is
        past, or not before the subscription's end.
    """
    now = floor_ms(now)
    effective_at = now if effective_at is None else floor_ms(effective_at)
    if effective_at < now:
        raise ValidationFailedError("effective_at", "must not be in the past")
    account, subscription = await own_subscription(session, subscription_id, now)
    if subscription.ends_at is not None and effective_at >= subscription.ends_at:
        raise ValidationFailedError("effective_at", "must be before the subscription's end")
    version = await offered_version(session, plan_code, account=account, allow_unlisted=allow_unlisted)
    require_change(subscription, version)
    await move(session, subscription, version, effective_at=effective_at, actor=actor, now=now)
    return subscription


async def cancel(
    session: AsyncSession,
    *,
    subscription_id: str,
    at: Literal["now", "period_end"],
    unused_time: Literal["kept", "credited"] = "kept",
    actor: str,
    now: datetime,
) -> Subscription:
    """End a subscription now, or let it run to the end of the billing period; drop changes planned for later.

    At period end the status stays until `advance` ends it; a trial ends with the trial. Cancelling to the same
    end again changes nothing. `unused_time`: what was paid in advance for the time after a cancellation now is
    kept, or credited by the last invoice.

    Raises:
        NotFoundError, SubscriptionOverError. ValidationFailedError: at period end no time is left unused.
    """
    now = floor_ms(now)
    if at == "period_end" and unused_time == "credited":
        raise ValidationFailedError("unused_time", "can only be credited when a subscription is cancelled now")
    _, subscription = await own_subscription(session, subscription_id, now)
    before = facts(subscription)
    # another server's clock may have been ahead when it began
    ends_at = max(now, subscription.started_at) if at == "now" else period_end(subscription, now)
    if at == "period_end" and subscription.ends_at is not None and subscription.ends_at <= ends_at:
        return subscription
    if at == "now":
        subscription.status = check_transition(subscription.status, Status.CANCELED).value
        subscription.unused_time = unused_time
    subscription.canceled_at = now
    subscription.ends_at = ends_at
    await rewrite(session, subscription, ahead(subscription, ends_at), at=ends_at, now=now)
    await note_change(session, subscription, action="subscription.canceled", before=before, actor=actor, now=now)
    return subscription


async def withdraw_cancellation(
    session: AsyncSession, *, subscription_id: str, actor: str, now: datetime
) -> Subscription:
    """Let a subscription that was to end with its period, or its trial, go on. Without an end nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    _, subscription = await own_subscription(session, subscription_id, now)
    ends_at = subscription.ends_at
    if ends_at is None:
        return subscription
    before = facts(subscription)
    subscription.canceled_at = None
    subscription.ends_at = None
    last = subscription.phases[-1]
    kind = PhaseKind.PAID if last.kind == PhaseKind.TRIAL else PhaseKind(last.kind)
    going_on = [Segment(last.plan_version_id, kind, ends_at, None)]
    await rewrite(session, subscription, going_on, at=ends_at, now=now)
    await note_change(session, subscription, action="subscription.kept", before=before, actor=actor, now=now)
    return subscription
