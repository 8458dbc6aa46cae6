"""Subscribing, changing plans, cancelling. Nothing here commits.

Every operation locks the account's row first (see `bump_gateway_version`), then the subscription: nobody waits
in a circle. Moments are cut to whole milliseconds, the gateway's resolution.
"""

from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import bump_gateway_version
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_hour, floor_ms
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.subscriptions.cap_renewal import renew_cap
from control_plane.subscriptions.model import OVER, Status, check_transition
from control_plane.subscriptions.offers import offered_version, require_change
from control_plane.subscriptions.phases import cut_phases, open_phase
from control_plane.subscriptions.queries import current_and_next_period
from control_plane.subscriptions.records import bumped_subscription, facts, record
from control_plane.subscriptions.tables import Subscription


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
    allow_unlisted: bool = False,
    actor: str,
    now: datetime,
) -> Subscription:
    """Put an account on the version of a plan that is on sale, from now on.

    `anchor_at` is where billing periods begin, a full hour; by default the hour that holds `now`, so the first
    period begins up to an hour early. `allow_unlisted` is an administrator's word: it permits hidden plans and
    plans sold by quote.

    Raises:
        NotFoundError: no such account or plan. PlanNotOnSaleError, PlanUnlistedError, CurrencyDiffersError,
        AlreadySubscribedError, AccountDeletedError. ValidationFailedError: `anchor_at` is not a full hour.
    """
    now = floor_ms(now)
    anchor_at = floor_hour(now) if anchor_at is None else anchor_at
    if anchor_at.tzinfo is None or floor_hour(anchor_at) != anchor_at:
        raise ValidationFailedError("anchor_at", "must be a full hour, with a time zone")
    account = await bump_gateway_version(session, account_id, now)
    version = await offered_version(session, plan_code, account=account, allow_unlisted=allow_unlisted)
    product = version.plan.api_product
    taken = await session.scalar(
        select(Subscription.id).where(
            Subscription.account_id == account_id,
            Subscription.api_product_id == product.id,
            Subscription.status.not_in(sorted(OVER)),
        )
    )
    if taken is not None:
        raise AlreadySubscribedError(taken, product.code)
    subscription = new_subscription(account_id, version, anchor_at=anchor_at, now=now)
    session.add(subscription)
    await session.flush()
    await record(session, subscription, action="subscription.started", before=None, actor=actor, now=now)
    return subscription


def new_subscription(account_id: str, version: PlanVersion, *, anchor_at: datetime, now: datetime) -> Subscription:
    """Return a subscription to a version, loaded with its plan, that runs from `now` on; a row not yet added."""
    return Subscription(
        id=new_id("sub", now),
        account_id=account_id,
        api_product_id=version.plan.api_product_id,
        status=Status.ACTIVE.value,
        anchor_at=anchor_at,
        interval=version.interval,
        started_at=now,
        overrides={},
        created_at=now,
        phases=[open_phase(version.id, starts_at=now, ends_at=None, now=now)],
    )


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
    those back. Moving to the same plan takes the newest version.

    Raises:
        NotFoundError, SubscriptionOverError, PlanNotOnSaleError, PlanUnlistedError, CurrencyDiffersError,
        ProductDiffersError, IntervalDiffersError. ValidationFailedError: `effective_at` is past, or not before
        the subscription's end.
    """
    now = floor_ms(now)
    effective_at = now if effective_at is None else floor_ms(effective_at)
    if effective_at < now:
        raise ValidationFailedError("effective_at", "must not be in the past")
    account, subscription = await bumped_subscription(session, subscription_id, now)
    if subscription.ends_at is not None and effective_at >= subscription.ends_at:
        raise ValidationFailedError("effective_at", "must be before the subscription's end")
    version = await offered_version(session, plan_code, account=account, allow_unlisted=allow_unlisted)
    require_change(subscription, version)
    before = facts(subscription)
    last = await cut_phases(session, subscription, at=effective_at)
    if last is not None and last.plan_version_id == version.id:
        last.ends_at = subscription.ends_at
    else:
        subscription.phases.append(
            open_phase(version.id, starts_at=effective_at, ends_at=subscription.ends_at, now=now)
        )
    renew_cap(subscription, now)
    await session.flush()
    await record(session, subscription, action="subscription.plan_changed", before=before, actor=actor, now=now)
    return subscription


async def cancel(
    session: AsyncSession, *, subscription_id: str, at: Literal["now", "period_end"], actor: str, now: datetime
) -> Subscription:
    """End a subscription now, or let it run to the end of the billing period; drop plan changes planned for later.

    At period end the status stays until `advance` ends it. Cancelling to the same end again changes nothing.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    _, subscription = await bumped_subscription(session, subscription_id, now)
    before = facts(subscription)
    ends_at = now if at == "now" else current_and_next_period(subscription, now)[0].end
    if at == "period_end" and subscription.ends_at is not None and subscription.ends_at <= ends_at:
        return subscription
    if at == "now":
        subscription.status = check_transition(subscription.status, Status.CANCELED).value
    subscription.canceled_at = now
    subscription.ends_at = ends_at
    await cut_phases(session, subscription, at=ends_at)
    renew_cap(subscription, now)
    await session.flush()
    await record(session, subscription, action="subscription.canceled", before=before, actor=actor, now=now)
    return subscription


async def withdraw_cancellation(
    session: AsyncSession, *, subscription_id: str, actor: str, now: datetime
) -> Subscription:
    """Let a subscription that was to end with its period go on. Without a cancellation nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    _, subscription = await bumped_subscription(session, subscription_id, now)
    if subscription.ends_at is None:
        return subscription
    before = facts(subscription)
    subscription.canceled_at = None
    subscription.ends_at = None
    subscription.phases[-1].ends_at = None
    renew_cap(subscription, now)
    await session.flush()
    await record(session, subscription, action="subscription.kept", before=before, actor=actor, now=now)
    return subscription


async def change_status(
    session: AsyncSession,
    *,
    subscription_id: str,
    status: Literal["active", "past_due", "paused"],
    actor: str,
    now: datetime,
) -> Subscription:
    """Move a live subscription to another live status: a payment failed or arrived, somebody paused or resumed it.

    The status it has already changes nothing.

    Raises:
        NotFoundError, SubscriptionOverError. TransitionRefusedError: the status machine has no such step.
    """
    now = floor_ms(now)
    _, subscription = await bumped_subscription(session, subscription_id, now)
    if subscription.status == status:
        return subscription
    before = facts(subscription)
    subscription.status = check_transition(subscription.status, status).value
    await session.flush()
    await record(session, subscription, action=f"subscription.{status}", before=before, actor=actor, now=now)
    return subscription
