"""The worker that takes up what was left lying: changes, checkouts, customers to be told, credits to be given."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import KmError
from control_plane.foundation.rounds import repeat
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable
from control_plane.stripe_sync.effects import NotYetError
from control_plane.stripe_sync.model import Clock, StripeContext
from control_plane.stripe_sync.subscriptions import metrics
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.beginning import SubscribedTwiceError
from control_plane.stripe_sync.subscriptions.changes import carry_out, due_changes
from control_plane.stripe_sync.subscriptions.checkout import (
    CheckoutCompletedError,
    apply_checkout,
    close_checkout,
    refuse_paid,
)
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
FAILED_PAUSE_SECONDS: Final = 60.0
SHORTEST_PAUSE: Final = timedelta(minutes=5)
LONGEST_PAUSE: Final = timedelta(hours=6)
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
    failing = Failing()

    async def one_round() -> float:
        async with sole_worker(context.sessions, LOCK) as mine:
            if mine:
                await take_up(context.at(clock()), limit=config.limit, failing=failing, clock=clock)
        return config.pause_seconds

    await repeat("stripe_subscriptions", one_round, stop=stop, failures=metrics.ROUND_FAILURES)


class Failing:
    """What failed a moment ago is left alone for a minute: it asks Stripe for nothing, and others go on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def note(self, what: str, which: str) -> None:
        self._until[what, which] = self._clock() + FAILED_PAUSE_SECONDS

    def rests(self, what: str, which: str) -> bool:
        """Say whether it failed within the last minute."""
        if self._until.get((what, which), self._clock()) > self._clock():
            return True
        self._until.pop((what, which), None)
        return False


async def take_up(
    ctx: StripeContext, *, limit: int = 100, failing: Failing | None = None, clock: Clock | None = None
) -> int:
    """Do what is due at `ctx.now`; returns how many things were taken up. What fails is left for the next time.

    `clock` gives each thing a moment of its own, since a round may take minutes; without it all have `ctx.now`.
    """
    one = partial(_one, ctx, failing=Failing() if failing is None else failing, clock=clock or (lambda: ctx.now))
    async with ctx.sessions() as session:
        changes = await due_changes(session, now=ctx.now, limit=limit)
        switches = await _late_switches(session, ctx, limit=limit)
        accounts = await untold_accounts(session, now=ctx.now, limit=limit)
    checkouts = await _due_checkouts(ctx, limit=limit)
    for change_id in changes:
        await one("change", change_id, partial(carry_out, change_id=change_id))
    for checkout_id, session_id in checkouts:
        await one("checkout", checkout_id, partial(_end_checkout, checkout_id=checkout_id, session_id=session_id))
    for stripe_id in switches:
        await one("switch", stripe_id, partial(apply_subscription, stripe_id=stripe_id))
    for account_id in accounts:
        await one("customer", account_id, partial(tell_customer, account_id=account_id))
    rewarded = await reward_payments_at_stripe(ctx, limit=limit) + await move_rewards(ctx, limit=limit)
    async with ctx.sessions() as session:
        credits_due = await due_credits(session, now=ctx.now, limit=limit)
    for credit_id in credits_due:
        await one("credit", credit_id, partial(give_credit, credit_id=credit_id))
    taken = (changes, checkouts, switches, accounts, credits_due)
    return rewarded + sum(len(found) for found in taken)


async def _one(
    ctx: StripeContext,
    what: str,
    which: str,
    work: Callable[[StripeContext], Awaitable[object]],
    *,
    failing: Failing,
    clock: Clock,
) -> None:
    """Do one thing; what Stripe, or we, refuse does not hold up the others, nor does what nobody foresaw."""
    if failing.rests(what, which):
        return
    metrics.TAKEN_UP.labels(what).inc()
    try:
        await work(ctx.at(clock()))
    except StripeUnavailable as error:
        log.warning("stripe_work_waits", what=what, which=which, problem=error.sentence)
    except (KmError, NotYetError) as error:
        log.warning("stripe_work_refused", what=what, which=which, problem=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it was, the others' turn comes all the same
        metrics.ROUND_FAILURES.inc()
        log.warning("stripe_work_failed", what=what, which=which, problem=repr(error))
    else:
        return
    failing.note(what, which)


async def _due_checkouts(ctx: StripeContext, *, limit: int) -> Sequence[tuple[str, str | None]]:
    """Return checkouts whose time is up, and put each off, longer every time: one may fail for days."""
    statement = (
        select(StripeCheckout)
        .where(StripeCheckout.state.in_(OPEN_CHECKOUT_STATES), StripeCheckout.next_try_at <= ctx.now)
        .order_by(StripeCheckout.next_try_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    async with ctx.sessions() as session, session.begin():
        rows = (await session.scalars(statement)).all()
        for row in rows:
            row.next_try_at = ctx.now + min(max(ctx.now - row.expires_at, SHORTEST_PAUSE), LONGEST_PAUSE)
        return [(row.id, row.session_id) for row in rows]


async def _end_checkout(ctx: StripeContext, *, checkout_id: str, session_id: str | None) -> None:
    """See what has become of a checkout whose time is up, and close it if that is nothing."""
    try:
        if session_id is not None:
            await apply_checkout(ctx, session_id)
    except StripeRefused as error:
        if not error.is_missing:
            raise
    except SubscribedTwiceError as error:
        await refuse_paid(ctx, checkout_id, error)
        raise
    with contextlib.suppress(CheckoutCompletedError):
        await close_checkout(ctx, checkout_id=checkout_id, actor=ACTOR)


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
