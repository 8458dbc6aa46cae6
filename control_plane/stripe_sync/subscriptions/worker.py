"""The worker that takes up what was left lying: changes, checkouts, customers to be told, credits to be given."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import KmError
from control_plane.foundation.rounds import repeat
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.client import StripeUnavailable
from control_plane.stripe_sync.effects import NotYetError
from control_plane.stripe_sync.model import Clock, StripeContext
from control_plane.stripe_sync.subscriptions import metrics
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.changes import carry_out, due_changes
from control_plane.stripe_sync.subscriptions.checkout import CheckoutCompletedError, apply_checkout, close_checkout
from control_plane.stripe_sync.subscriptions.checkout_rows import checkout_by_id
from control_plane.stripe_sync.subscriptions.credits import (
    due_credits,
    give_credit,
    move_rewards,
    reward_payments_at_stripe,
)
from control_plane.stripe_sync.subscriptions.customers import tell_customer, untold_accounts
from control_plane.stripe_sync.subscriptions.tables import (
    OPEN_CHECKOUT_STATES,
    StripeChange,
    StripeCheckout,
    StripeSubscription,
)

LOCK = 4_242_026  # any number, the same for ever
ACTOR = "system:stripe"
# how long after its time a switch that Stripe had planned is looked at, where no event told of it
SWITCH_SLACK = timedelta(minutes=10)
CHECKOUT_AGAIN = timedelta(minutes=5)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SubscriptionsConfig:
    """`pause_seconds` between two rounds, of at most `limit` of each kind."""

    pause_seconds: float = 2.0
    limit: int = 100


async def run_stripe_subscriptions(
    *, config: SubscriptionsConfig, context: StripeContext, clock: Clock, stop: asyncio.Event
) -> None:
    """Take up what is due, until `stop`."""

    async def one_round() -> float:
        async with sole_worker(context.sessions, LOCK) as mine:
            if mine:
                await take_up(context.at(clock()), limit=config.limit)
        return config.pause_seconds

    await repeat("stripe_subscriptions", one_round, stop=stop, failures=metrics.ROUND_FAILURES)


async def take_up(ctx: StripeContext, *, limit: int = 100) -> int:
    """Do what is due at `ctx.now`; returns how many things were taken up. What fails is left for the next time."""
    async with ctx.sessions() as session:
        changes = await due_changes(session, now=ctx.now, limit=limit)
        checkouts = await _due_checkouts(session, ctx, limit=limit)
        switches = await _late_switches(session, ctx, limit=limit)
        accounts = await untold_accounts(session, now=ctx.now, limit=limit)
    for change_id in changes:
        await _one("change", change_id, carry_out(ctx, change_id))
    for checkout_id, session_id in checkouts:
        await _one("checkout", checkout_id, _end_checkout(ctx, checkout_id, session_id))
    for stripe_id in switches:
        await _one("switch", stripe_id, apply_subscription(ctx, stripe_id))
    for account_id in accounts:
        await _one("customer", account_id, tell_customer(ctx, account_id))
    rewarded = await reward_payments_at_stripe(ctx, limit=limit) + await move_rewards(ctx, limit=limit)
    async with ctx.sessions() as session:
        credits_due = await due_credits(session, now=ctx.now, limit=limit)
    for credit_id in credits_due:
        await _one("credit", credit_id, give_credit(ctx, credit_id))
    taken = (changes, checkouts, switches, accounts, credits_due)
    return rewarded + sum(len(found) for found in taken)


async def _one(what: str, which: str, work: Awaitable[object]) -> None:
    """Do one thing; what Stripe, or we, refuse does not hold up the others."""
    metrics.TAKEN_UP.labels(what).inc()
    try:
        await work
    except StripeUnavailable as error:
        log.warning("stripe_work_waits", what=what, which=which, problem=error.sentence)
    except (KmError, NotYetError) as error:
        log.warning("stripe_work_refused", what=what, which=which, problem=str(error))


async def _end_checkout(ctx: StripeContext, checkout_id: str, session_id: str | None) -> None:
    """See what has become of a checkout whose time is up, and close it; what fails is tried again in minutes."""
    async with ctx.sessions() as session, session.begin():
        (await checkout_by_id(session, checkout_id, locked=True)).next_try_at = ctx.now + CHECKOUT_AGAIN
    if session_id is not None:
        await apply_checkout(ctx, session_id)
    with contextlib.suppress(CheckoutCompletedError):
        await close_checkout(ctx, checkout_id=checkout_id, actor=ACTOR)


async def _due_checkouts(
    session: AsyncSession, ctx: StripeContext, *, limit: int
) -> Sequence[tuple[str, str | None]]:
    rows = await session.execute(
        select(StripeCheckout.id, StripeCheckout.session_id)
        .where(StripeCheckout.state.in_(OPEN_CHECKOUT_STATES), StripeCheckout.next_try_at <= ctx.now)
        .order_by(StripeCheckout.next_try_at)
        .limit(limit)
    )
    return [(checkout_id, session_id) for checkout_id, session_id in rows]


async def _late_switches(session: AsyncSession, ctx: StripeContext, *, limit: int) -> Sequence[str]:
    """Return subscriptions whose planned change should have been made by now and was not seen."""
    statement = (
        select(StripeSubscription.stripe_id)
        .join(StripeChange, StripeChange.subscription_id == StripeSubscription.subscription_id)
        .where(
            StripeChange.state == "scheduled",
            StripeChange.effective_at < ctx.now - SWITCH_SLACK,
            StripeSubscription.read_at < ctx.now - SWITCH_SLACK,
        )
        .limit(limit)
    )
    return (await session.scalars(statement)).all()
