"""A subscription's row under lock, and its line in the audit log."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.operations import bump_gateway_version
from control_plane.accounts.tables import Account
from control_plane.foundation.audit import add_change
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.subscriptions.cap_renewal import renew_cap
from control_plane.subscriptions.model import OVER, Status, check_transition
from control_plane.subscriptions.tables import Subscription

SYSTEM = "system"


class SubscriptionOverError(ConflictError):
    """The subscription was cancelled or has ended."""

    def __init__(self, subscription_id: str) -> None:
        super().__init__("subscription_over", f"Subscription {subscription_id} is over.")


class BilledByStripeError(ConflictError):
    """Stripe has the subscription: ours follows it, and is never changed alone."""

    def __init__(self, subscription_id: str, instead: str) -> None:
        super().__init__(
            "billed_by_stripe", f"Subscription {subscription_id} is billed by Stripe, and follows it: {instead}."
        )


VIA_STRIPE = "ask a server that has KM_STRIPE_KEY, so that the change is made there"


async def own_subscription(
    session: AsyncSession, subscription_id: str, now: datetime, *, instead: str = VIA_STRIPE
) -> tuple[Account, Subscription]:
    """Return the same as `bumped_subscription`, of a subscription that has invoices of our own.

    Raises:
        NotFoundError, SubscriptionOverError. BilledByStripeError: `instead` says what to do.
    """
    account, subscription = await bumped_subscription(session, subscription_id, now)
    if subscription.billed_by != "own":
        raise BilledByStripeError(subscription_id, instead)
    return account, subscription


async def bumped_subscription(
    session: AsyncSession, subscription_id: str, now: datetime
) -> tuple[Account, Subscription]:
    """Return a subscription that is not over, locked, and its account, whose gateway version is one higher.

    What has begun by now and was not noted yet has been noted: a trial that is over is one no longer.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    account_id = await session.scalar(select(Subscription.account_id).where(Subscription.id == subscription_id))
    if account_id is None:
        raise NotFoundError("subscription", subscription_id)
    account = await bump_gateway_version(session, account_id, now)
    subscription = await locked_subscription(session, subscription_id)
    if subscription.status in OVER or (subscription.ends_at is not None and subscription.ends_at <= now):
        raise SubscriptionOverError(subscription_id)
    if begin_phases(session, subscription, now):
        await tell_billing(session, subscription, now)
    return account, subscription


async def locked_subscription(session: AsyncSession, subscription_id: str) -> Subscription:
    """Return an existing subscription, read afresh with phases and add-ons and locked; lock its account first."""
    statement = (
        select(Subscription)
        .where(Subscription.id == subscription_id)
        .options(selectinload(Subscription.phases), selectinload(Subscription.add_ons))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).one()


def begin_phases(session: AsyncSession, subscription: Subscription, now: datetime) -> int:
    """Note the planned phases that have begun by `now`; returns how many. A trial that is over is active."""
    waiting = [phase for phase in subscription.phases if phase.applied_at is None and phase.starts_at <= now]
    for phase in waiting:
        phase.applied_at = now
    goes_on = subscription.ends_at is None or subscription.ends_at > now
    ends_at = subscription.trial_ends_at
    if subscription.status == Status.TRIALING and goes_on and ends_at is not None and ends_at <= now:
        before = facts(subscription)
        subscription.status = check_transition(subscription.status, Status.ACTIVE).value
        action = "subscription.trial_ended"
        add_record(session, subscription, action=action, before=before, actor=SYSTEM, now=now)
    return len(waiting)


def end_in_time(session: AsyncSession, subscription: Subscription, now: datetime) -> bool:
    """Note the end of a subscription that has come by `now`; says whether it did."""
    if subscription.status in OVER or subscription.ends_at is None or subscription.ends_at > now:
        return False
    before = facts(subscription)
    subscription.status = check_transition(subscription.status, Status.ENDED).value
    add_record(session, subscription, action="subscription.ended", before=before, actor=SYSTEM, now=now)
    return True


async def tell_billing(session: AsyncSession, subscription: Subscription, now: datetime) -> None:
    """Write the news that what a subscription is billed has changed."""
    await enqueue(session, topic=Topic.SUBSCRIPTION_CHANGED, entity_id=subscription.id, now=now)


def facts(subscription: Subscription) -> dict[str, Any]:
    """Return what the audit log keeps of a subscription (phases and add-ons loaded)."""
    return {
        "account_id": subscription.account_id,
        "status": subscription.status,
        "anchor_at": subscription.anchor_at.isoformat(),
        "ends_at": _text(subscription.ends_at),
        "trial_ends_at": _text(subscription.trial_ends_at),
        "unused_time": subscription.unused_time,
        "overrides": dict(subscription.overrides),
        "spend_cap_minor": subscription.spend_cap_minor,
        "phases": [
            {
                "plan_version_id": phase.plan_version_id,
                "kind": phase.kind,
                "starts_at": _text(phase.starts_at),
                "ends_at": _text(phase.ends_at),
            }
            for phase in subscription.phases
        ],
        "add_ons": [
            {
                "plan_version_id": add_on.plan_version_id,
                "quantity": add_on.quantity,
                "starts_at": _text(add_on.starts_at),
                "ends_at": _text(add_on.ends_at),
            }
            for add_on in subscription.add_ons
        ],
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


async def note_change(
    session: AsyncSession,
    subscription: Subscription,
    *,
    action: str,
    before: dict[str, Any],
    actor: str,
    now: datetime,
) -> None:
    """Finish a change of what a subscription is billed: renew its cap, write the audit row, tell billing."""
    renew_cap(subscription, now)
    await record(session, subscription, action=action, before=before, actor=actor, now=now)
    await tell_billing(session, subscription, now)


async def record(
    session: AsyncSession,
    subscription: Subscription,
    *,
    action: str,
    before: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    """Write the audit row of a change that was just made."""
    add_record(session, subscription, action=action, before=before, actor=actor, now=now)
    await session.flush()


def add_record(
    session: AsyncSession,
    subscription: Subscription,
    *,
    action: str,
    before: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    """Put the audit row of a change into the session, to be written with its next flush."""
    add_change(
        session,
        actor=actor,
        action=action,
        entity_type="subscription",
        entity_id=subscription.id,
        before=before,
        after=facts(subscription),
        now=now,
    )
