"""What people ask for on a subscription that Stripe bills: checked here, wanted of Stripe, and carried out.

Ours changes when Stripe shows the change, never before: access follows payment. Each of these commits, and returns
the change with what has come of it so far.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.operations import require_cap_kept
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.changes import carry_out, want_change
from control_plane.stripe_sync.subscriptions.checkout_terms import prices_at_stripe
from control_plane.stripe_sync.subscriptions.following import follow_holding
from control_plane.stripe_sync.subscriptions.held_here import HeldHere, held_here
from control_plane.stripe_sync.subscriptions.model import Holding, Wanted
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.stripe_sync.subscriptions.tables import StripeChange
from control_plane.subscriptions.add_ons import MAX_QUANTITY, AddOnHeldError, AddOnsClosedError
from control_plane.subscriptions.offers import offered_version, require_addition, require_change
from control_plane.subscriptions.plan_changes import SubscriptionEndingError, gives_more, least_charge
from control_plane.subscriptions.queries import period_end
from control_plane.subscriptions.trials import LONGEST_TRIAL, NotTrialingError

At = Literal["auto", "now", "period_end"]
Ask = Callable[[AsyncSession, HeldHere], Awaitable[tuple[Kind, dict[str, Any]]]]
PREVIEW_HOLDS: Final = timedelta(hours=1)


class PaymentOverdueError(ConflictError):
    """Nothing more is sold to who has not paid."""

    def __init__(self, status: str) -> None:
        super().__init__(
            "payment_overdue",
            f"The subscription is {status} at Stripe: pay its open invoice first (the customer can in the portal).",
        )


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
    gave it), and the plan changes when that is paid. At period end: planned at Stripe, without proration. Replaces a
    change planned before; the plan that is in force takes that back.

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

    return await _request(ctx, subscription_id, ask, actor=actor)


async def discard_change(ctx: StripeContext, *, subscription_id: str, actor: str) -> StripeChange:
    """Take back what is planned for the period's end, removals of add-ons too. Without anything: nothing changes."""

    async def ask(_session: AsyncSession, _held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        return Kind.WITHDRAW, {}

    return await _request(ctx, subscription_id, ask, actor=actor)


async def cancel(
    ctx: StripeContext,
    *,
    subscription_id: str,
    at: Literal["now", "period_end"],
    unused_time: Literal["kept", "credited"] = "kept",
    actor: str,
) -> StripeChange:
    """End it when the billing period (or the trial) ends, or now: then Stripe bills the usage until now.

    `unused_time` credited: what was paid for the time after is a credit on that invoice. What was planned is dropped.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError. ValidationFailedError: nothing is left unused.
    """
    if at == "period_end" and unused_time == "credited":
        raise ValidationFailedError("unused_time", "can only be credited when a subscription is cancelled now")

    async def ask(_session: AsyncSession, _held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        if at == "period_end":
            return Kind.CANCEL, {}
        return Kind.CANCEL_NOW, {"prorate": unused_time == "credited"}

    return await _request(ctx, subscription_id, ask, actor=actor)


async def keep(ctx: StripeContext, *, subscription_id: str, actor: str) -> StripeChange:
    """Take a cancellation at period end back. Without one nothing changes."""

    async def ask(_session: AsyncSession, _held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        return Kind.KEEP, {}

    return await _request(ctx, subscription_id, ask, actor=actor)


async def end_trial(ctx: StripeContext, *, subscription_id: str, actor: str) -> StripeChange:
    """End a trial now: the first period begins when it is paid for.

    Raises:
        NotFoundError, SubscriptionOverError, NotTrialingError, ChangeInProgressError.
    """

    async def ask(_session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_trial(held)
        return Kind.END_TRIAL, {}

    return await _request(ctx, subscription_id, ask, actor=actor)


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

    return await _request(ctx, subscription_id, ask, actor=actor)


async def add_on(
    ctx: StripeContext,
    *,
    subscription_id: str,
    add_on_code: str,
    quantity: int = 1,
    allow_unlisted: bool = False,
    actor: str,
) -> StripeChange:
    """Add the version of an add-on that is on sale, charged at once for the rest of the period.

    Raises:
        As `subscriptions.add_ons.add_on`; PlanNotAtStripeError, PaymentOverdueError, ChangeInProgressError.
    """
    _check_quantity(quantity)

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_open(held)
        version = await offered_version(
            session, add_on_code, account=held.account, allow_unlisted=allow_unlisted, kind="add_on"
        )
        require_addition(held.subscription, version)
        if await _held_version(session, held, add_on_code) is not None:
            raise AddOnHeldError(add_on_code)
        fees = await _fees_of(session, held, version)
        return update_wanted(held, held.now.with_add_on(version.id, quantity), dearer=True, fees=fees, now=ctx.now)

    return await _request(ctx, subscription_id, ask, actor=actor)


async def change_quantity(
    ctx: StripeContext, *, subscription_id: str, add_on_code: str, quantity: int, actor: str
) -> StripeChange:
    """Have another quantity of an add-on from now on; more is charged at once, less is credited on the next invoice.

    Raises:
        NotFoundError, SubscriptionOverError, AddOnsClosedError, ChangeInProgressError, PaymentOverdueError.
    """
    _check_quantity(quantity)

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_open(held)
        version = await _required_version(session, held, add_on_code)
        dearer = quantity > held.now.quantities[version.id]
        return update_wanted(held, held.now.with_add_on(version.id, quantity), dearer=dearer, fees=[], now=ctx.now)

    return await _request(ctx, subscription_id, ask, actor=actor)


async def remove_add_on(
    ctx: StripeContext, *, subscription_id: str, add_on_code: str, at: Literal["now", "period_end"], actor: str
) -> StripeChange:
    """End an add-on now (the unused time is credited on the next invoice), or when the billing period ends.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError, SubscriptionEndingError.
    """

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        version = await _required_version(session, held, add_on_code)
        if at == "now":
            return update_wanted(held, held.now.with_add_on(version.id, 0), dearer=False, fees=[], now=ctx.now)
        return schedule_wanted(held, (held.later or held.now).with_add_on(version.id, 0))

    return await _request(ctx, subscription_id, ask, actor=actor)


async def keep_add_on(ctx: StripeContext, *, subscription_id: str, add_on_code: str, actor: str) -> StripeChange:
    """Take the removal of an add-on at period end back. Without one nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError.
    """

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        version = await _required_version(session, held, add_on_code)
        count = held.now.quantities[version.id]
        return schedule_wanted(held, (held.later or held.now).with_add_on(version.id, count))

    return await _request(ctx, subscription_id, ask, actor=actor)


async def plan_change_wanted(
    session: AsyncSession,
    held: HeldHere,
    *,
    plan_code: str,
    at: At,
    proration_at: datetime | None,
    allow_unlisted: bool,
    now: datetime,
) -> tuple[Kind, dict[str, Any]]:
    """Return what a change of plan comes to at Stripe; see `change_plan`."""
    version = await offered_version(session, plan_code, account=held.account, allow_unlisted=allow_unlisted)
    require_change(held.subscription, version)
    await prices_at_stripe(session, version, currency=held.account.currency)
    if version.id == held.now.plan_version_id:
        return Kind.WITHDRAW, {}
    running = (await plan_versions(session, [held.now.plan_version_id]))[held.now.plan_version_id]
    more = gives_more(version, than=running, currency=held.account.currency)
    if at == "auto":
        at = "now" if held.on_trial or more else "period_end"
    if at == "period_end":
        return schedule_wanted(held, Holding(version.id, (held.later or held.now).add_ons))
    currency = held.account.currency
    dearer = more or least_charge(version, currency) > least_charge(running, currency)
    target = Holding(version.id, held.now.add_ons)
    fees = await _fees_of(session, held, version)
    kind, wanted = update_wanted(held, target, dearer=dearer, fees=fees, proration_at=proration_at, now=now)
    return kind, {**wanted, "later": None}


def update_wanted(
    held: HeldHere,
    target: Holding,
    *,
    dearer: bool,
    fees: list[str],
    proration_at: datetime | None = None,
    now: datetime,
) -> tuple[Kind, dict[str, Any]]:
    """Return an update of the items, and how it is charged; what is planned for later stays planned.

    Raises:
        PaymentOverdueError: it costs more, and the subscription is overdue. ValidationFailedError: `proration_at`.
    """
    if dearer and held.row.status in {"past_due", "unpaid", "paused"}:
        raise PaymentOverdueError(held.row.status)
    if proration_at is not None and not now - PREVIEW_HOLDS <= proration_at <= now + timedelta(minutes=1):
        raise ValidationFailedError("proration_at", "must be of a preview made within the last hour")
    moment = max(proration_at or now, held.row.current_period_start).replace(microsecond=0)
    charged = "always_invoice" if dearer else "create_prorations"
    later = None
    if held.later is not None:
        added = {key: count for key, count in target.add_ons if held.now.quantities.get(key) != count}
        gone = {key: 0 for key in held.now.quantities.keys() - target.quantities.keys()}
        later = Holding.of(held.later.plan_version_id, {**held.later.quantities, **added, **gone}).as_dict()
    return Kind.UPDATE, {
        **target.as_dict(),
        "proration": "none" if held.on_trial else charged,
        "proration_at": moment.isoformat(),
        "setup_fees": fees,
        "later": later,
    }


def schedule_wanted(held: HeldHere, target: Holding) -> tuple[Kind, dict[str, Any]]:
    """Return that something is planned for the period's end, or that what was planned is taken back.

    Raises:
        SubscriptionEndingError: it ends then.
    """
    if target == held.now:
        return Kind.WITHDRAW, {}
    if held.subscription.ends_at is not None:
        raise SubscriptionEndingError(held.subscription.ends_at)
    return Kind.SCHEDULE, target.as_dict()


async def _request(ctx: StripeContext, subscription_id: str, ask: Ask, *, actor: str) -> StripeChange:
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


async def _fees_of(session: AsyncSession, held: HeldHere, version: PlanVersion) -> list[str]:
    """Return the setup fees that a version brings: a plan's once in a subscription's life, an add-on's each time."""
    prices = await prices_at_stripe(session, version, currency=held.account.currency)
    if version.plan.kind != "add_on" and held.row.setup_fee_at is not None:
        return []
    return [price.price_id for price in prices if price.kind == "setup_fee"]


async def _held_version(session: AsyncSession, held: HeldHere, add_on_code: str) -> PlanVersion | None:
    ids = held.now.quantities.keys() | (held.later.quantities.keys() if held.later is not None else set())
    versions = await plan_versions(session, ids)
    return next((one for one in versions.values() if one.plan.code == add_on_code), None)


async def _required_version(session: AsyncSession, held: HeldHere, add_on_code: str) -> PlanVersion:
    version = await _held_version(session, held, add_on_code)
    if version is None or version.id not in held.now.quantities:
        raise NotFoundError("add_on", f"{add_on_code} on subscription {held.subscription.id}")
    return version


def _require_trial(held: HeldHere) -> None:
    if not held.on_trial:
        raise NotTrialingError(held.subscription.id, held.subscription.status)


def _require_open(held: HeldHere) -> None:
    if held.subscription.status in {"trialing", "paused"}:
        raise AddOnsClosedError(held.subscription.status)


def _check_quantity(quantity: int) -> None:
    if not 1 <= quantity <= MAX_QUANTITY:
        raise ValidationFailedError("quantity", f"must be between 1 and {MAX_QUANTITY}")
