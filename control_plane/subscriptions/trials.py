"""Ending a trial early, and making one longer. Nothing here commits."""

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour, floor_ms
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.subscriptions.model import Status, check_transition
from control_plane.subscriptions.phases import ahead, rewrite
from control_plane.subscriptions.records import facts, note_change, own_subscription
from control_plane.subscriptions.segments import Segment, from_moment, until, with_kind
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import PhaseKind

LONGEST_TRIAL = timedelta(days=730)


class NotTrialingError(ConflictError):
    """The subscription has no trial that could end or go on."""

    def __init__(self, subscription_id: str, status: str) -> None:
        super().__init__(
            "subscription_not_trialing", f"Subscription {subscription_id} is {status}, it is not in a trial."
        )


async def end_trial(session: AsyncSession, *, subscription_id: str, actor: str, now: datetime) -> Subscription:
    """End a trial now and go on as a paying subscription, also where it was to end with the trial.

    Billing periods begin in the hour that holds `now`. A change of plan that was planned for the trial's end is
    made, too.

    Raises:
        NotFoundError, SubscriptionOverError, NotTrialingError.
    """
    now = floor_ms(now)
    subscription = await _trialing(session, subscription_id, now)
    await convert(session, subscription, actor=actor, now=now)
    return subscription


async def convert(session: AsyncSession, subscription: Subscription, *, actor: str, now: datetime) -> None:
    """Have a trial, locked, go on as a paying subscription from `now` on: on the plan that was to follow it."""
    before = facts(subscription)
    planned = ahead(subscription, now)
    after = from_moment(planned, subscription.trial_ends_at or now) or planned
    paid = with_kind([replace(after[0], starts_at=now), *after[1:]], PhaseKind.PAID)
    subscription.status = check_transition(subscription.status, Status.ACTIVE).value
    subscription.ends_at = subscription.canceled_at = None
    subscription.trial_ends_at = now
    subscription.anchor_at = floor_hour(now)
    await rewrite(session, subscription, paid, at=now, now=now)
    await note_change(
        session, subscription, action="subscription.trial_ended", before=before, actor=actor, now=now
    )


async def extend_trial(
    session: AsyncSession, *, subscription_id: str, ends_at: datetime, actor: str, now: datetime
) -> Subscription:
    """Let a trial end later, at a full hour. A change of plan that was planned for its end moves with it.

    What was to happen at its end, going on or ending, happens then. Changes that are planned for other moments
    stay as they are; of those after the old end up to the new one the last is made at the new one.

    Raises:
        NotFoundError, SubscriptionOverError, NotTrialingError. ValidationFailedError: `ends_at` is no full hour,
        not after the trial's end, or more than two years after the trial began.
    """
    now = floor_ms(now)
    if ends_at.tzinfo is None or floor_hour(ends_at) != ends_at:
        raise ValidationFailedError("ends_at", "must be a full hour, with a time zone")
    subscription = await _trialing(session, subscription_id, now)
    ends_before = subscription.trial_ends_at
    if ends_before is not None and ends_at <= ends_before:
        raise ValidationFailedError("ends_at", f"must be after the trial's end, {ends_before:%Y-%m-%dT%H:%MZ}")
    if ends_at > subscription.started_at + LONGEST_TRIAL:
        raise ValidationFailedError("ends_at", f"must be within {LONGEST_TRIAL.days} days of its beginning")
    before = facts(subscription)
    planned = ahead(subscription, now)
    trial = until(planned, ends_before)
    trial[-1] = replace(trial[-1], ends_at=ends_at)
    paid = from_moment(planned, ends_at) or [Segment(planned[-1].plan_version_id, PhaseKind.PAID, ends_at, None)]
    subscription.anchor_at = subscription.trial_ends_at = ends_at
    if subscription.ends_at is not None:
        subscription.ends_at = ends_at
    await rewrite(session, subscription, [*trial, *paid], at=now, now=now)
    await note_change(
        session, subscription, action="subscription.trial_extended", before=before, actor=actor, now=now
    )
    return subscription


async def _trialing(session: AsyncSession, subscription_id: str, now: datetime) -> Subscription:
    _, subscription = await own_subscription(session, subscription_id, now)
    if subscription.status != Status.TRIALING:
        raise NotTrialingError(subscription_id, subscription.status)
    return subscription
