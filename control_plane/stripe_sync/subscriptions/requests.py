"""What people ask for on a subscription that Stripe bills: checked here, wanted of Stripe, and carried out.

Ours changes when Stripe shows the change, never before: access follows payment. Each of these commits, and returns
the change with what has come of it so far.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.operations import require_cap_kept
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.changes import carry_out, give_up, want_change
from control_plane.stripe_sync.subscriptions.following import follow_holding
from control_plane.stripe_sync.subscriptions.held_here import HeldHere, held_here
from control_plane.stripe_sync.subscriptions.model import Holding, Wanted
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.stripe_sync.subscriptions.tables import StripeChange
from control_plane.stripe_sync.subscriptions.wanted import At, plan_change_wanted
from control_plane.subscriptions.queries import period_end
from control_plane.subscriptions.trials import LONGEST_TRIAL, NotTrialingError

Ask = Callable[[AsyncSession, HeldHere], Awaitable[tuple[Kind, dict[str, Any]]]]


async def change_plan(
    ctx: StripeContext,
    *,
    subscription_id: str,
    plan_code: str,
    at: At = "auto",
    proration_at: datetime | None = None,
    allow_unlisted: bool = False,
    actor: str,
) -> StripeChange:
    """Move to the version of a plan that is on sale: at once where the customer gets more, else at period end.

    At once: Stripe charges what is missing for the rest of the period, reckoned from `proration_at` (as a preview
    gave it), and the plan changes when that is paid. At period end: planned at Stripe, without proration. A change
    planned before is replaced; the plan that is in force takes it back.

    Raises:
        As `subscriptions.plan_changes.change`; PlanNotAtStripeError, PaymentOverdueError, ChangeInProgressError.
    """

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        return await plan_change_wanted(
            session,
            held,
            plan_code=plan_code,
            at=at,
            proration_at=proration_at,
            allow_unlisted=allow_unlisted,
            now=ctx.now,
        )

    return await request(ctx, subscription_id, ask, actor=actor)


async def discard_change(ctx: StripeContext, *, subscription_id: str, actor: str) -> StripeChange:
    """Take back what is planned for the period's end, removals of add-ons too, or what waits for its payment.

    Repeatable. What waits is not made, and its invoice is void.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError. StripeUnavailable: it waited for a payment.
    """
    given_up = await give_up(ctx, subscription_id, actor=actor)
    if given_up is not None:
        return given_up

    async def ask(_session: AsyncSession, _held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        return Kind.WITHDRAW, {}

    return await request(ctx, subscription_id, ask, actor=actor)


async def cancel(
    ctx: StripeContext,
    *,
    subscription_id: str,
    at: Literal["now", "period_end"],
    unused_time: Literal["kept", "credited"] = "kept",
    actor: str,
) -> StripeChange:
    """End it when the billing period (or the trial) ends, or now: then Stripe bills the usage until now.

    `unused_time` credited: what was paid for the time after is a credit on that invoice. Planned changes are
    dropped.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError. ValidationFailedError: nothing is left unused.
    """
    if at == "period_end" and unused_time == "credited":
        raise ValidationFailedError("unused_time", "can only be credited when a subscription is cancelled now")

    async def ask(_session: AsyncSession, _held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        if at == "period_end":
            return Kind.CANCEL, {}
        return Kind.CANCEL_NOW, {"prorate": unused_time == "credited"}

    return await request(ctx, subscription_id, ask, actor=actor)


async def keep(ctx: StripeContext, *, subscription_id: str, actor: str) -> StripeChange:
    """Take a cancellation at period end back. Without one nothing changes."""

    async def ask(_session: AsyncSession, _held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        return Kind.KEEP, {}

    return await request(ctx, subscription_id, ask, actor=actor)


async def end_trial(ctx: StripeContext, *, subscription_id: str, actor: str) -> StripeChange:
    """End a trial now: the first period begins when it is paid for.

    Raises:
        NotFoundError, SubscriptionOverError, NotTrialingError, ChangeInProgressError.
    """

    async def ask(_session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_trial(held)
        return Kind.END_TRIAL, {}

    return await request(ctx, subscription_id, ask, actor=actor)


async def extend_trial(ctx: StripeContext, *, subscription_id: str, ends_at: datetime, actor: str) -> StripeChange:
    """Let a trial end later, at a full hour.

    Raises:
        NotFoundError, SubscriptionOverError, NotTrialingError, ChangeInProgressError. ValidationFailedError.
    """
    if ends_at.tzinfo is None or floor_hour(ends_at) != ends_at:
        raise ValidationFailedError("ends_at", "must be a full hour, with a time zone")

    async def ask(_session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_trial(held)
        before = held.row.trial_end
        if before is not None and ends_at <= before:
            raise ValidationFailedError("ends_at", f"must be after the trial's end, {before:%Y-%m-%dT%H:%MZ}")
        if ends_at > held.subscription.started_at + LONGEST_TRIAL:
            raise ValidationFailedError("ends_at", f"must be within {LONGEST_TRIAL.days} days of its beginning")
        return Kind.EXTEND_TRIAL, {"ends_at": ends_at.isoformat()}

    return await request(ctx, subscription_id, ask, actor=actor)


async def request(ctx: StripeContext, subscription_id: str, ask: Ask, *, actor: str) -> StripeChange:
    """Write down what is asked for, once it was checked, and carry it out; commits."""
    await _require_cap(ctx, subscription_id, ask)
    async with ctx.sessions() as session, session.begin():
        held = await held_here(session, subscription_id, now=ctx.now)
        kind, wanted = await ask(session, held)
        change = await want_change(session, held.row, kind, wanted, actor=actor, now=ctx.now)
    return await carry_out(ctx, change.id)


async def _require_cap(ctx: StripeContext, subscription_id: str, ask: Ask) -> None:
    """Refuse what the subscription's spend cap forbids, by making the change here and taking it back.

    Raises:
        CapBelowFixedChargesError and the others of `require_cap_kept`.
    """
    async with ctx.sessions() as session:
        held = await held_here(session, subscription_id, now=ctx.now)
        if held.subscription.spend_cap_minor is None:
            return
        kind, wanted = await ask(session, held)
        if kind not in {Kind.UPDATE, Kind.SCHEDULE}:
            return
        target, ends_at = Holding.from_dict(wanted), held.subscription.ends_at
        if kind is Kind.UPDATE:
            there = Wanted(target, None, ends_at)
        else:
            there = Wanted(held.now, (period_end(held.subscription, ctx.now), target), ends_at)
        await follow_holding(session, held.subscription, there, now=ctx.now)
        await require_cap_kept(session, held.subscription, now=ctx.now)
        await session.rollback()


def _require_trial(held: HeldHere) -> None:
    if not held.on_trial:
        raise NotTrialingError(held.subscription.id, held.subscription.status)
