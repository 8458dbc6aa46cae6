"""Reading objects at Stripe again and writing what they say into our tables.

Each of these may run at any time, twice, and for events in any order: an object is read under its lock, so what is
written last was read last.
"""

from datetime import datetime

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.stripe_sync.effects import Effect, NotYetError, mark_handled
from control_plane.stripe_sync.model import StripeContext, SubscriptionSeen
from control_plane.stripe_sync.subscriptions.beginning import begin_subscription, want_rest
from control_plane.stripe_sync.subscriptions.following import follow
from control_plane.stripe_sync.subscriptions.lookups import known_prices
from control_plane.stripe_sync.subscriptions.model import (
    Holding,
    SubscriptionState,
    Wanted,
    holding_of,
    hour_here,
)
from control_plane.stripe_sync.subscriptions.reading import id_of, read_subscription
from control_plane.stripe_sync.subscriptions.rows import note_discounts, note_items, note_spans, write_row
from control_plane.stripe_sync.subscriptions.settling import is_beginning, settle_changes
from control_plane.stripe_sync.subscriptions.steps import Seen
from control_plane.stripe_sync.subscriptions.tables import StripeCheckout, StripeSubscription
from control_plane.subscriptions.records import locked_subscription
from control_plane.subscriptions.tables import Subscription

log = structlog.get_logger(__name__)


async def apply_subscription(ctx: StripeContext, stripe_id: str) -> Effect | None:
    """Read a subscription at Stripe and bring ours, and what we know of it, to what it says.

    Ours begins with the first reading that shows it paid for, or on trial, and follows from then on. The hooks of
    `ctx` are called in the same transaction.

    Raises:
        NotYetError: it bears our mark, but its checkout is not known. StripeRefused, StripeUnavailable.
    """
    async with ctx.sessions() as session, session.begin():
        await lock_object(session, stripe_id)
        state = await read_subscription(ctx.stripe, stripe_id)
        row = await session.scalar(
            select(StripeSubscription)
            .where(StripeSubscription.stripe_id == stripe_id)
            .execution_options(populate_existing=True)
        )
        if row is None:
            if state.metadata.get("km_installation") != ctx.config.installation:
                return Effect.NOT_OURS
            if not state.is_live:
                await mark_handled(session)
                return None
        await _write(ctx, session, row, state)
        await mark_handled(session)
    return None


async def apply_schedule(ctx: StripeContext, schedule_id: str) -> Effect | None:
    """Read the subscription that a schedule holds, or held; what is planned is read with it.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    async with ctx.sessions() as session:
        stripe_id = await session.scalar(
            select(StripeSubscription.stripe_id).where(StripeSubscription.schedule_id == schedule_id)
        )
    if stripe_id is None:
        found = await ctx.stripe.call(lambda c: c.v1.subscription_schedules.retrieve_async(schedule_id))
        stripe_id = id_of(found.subscription) or found.released_subscription
    if stripe_id is None:
        return Effect.NOT_OURS
    return await apply_subscription(ctx, stripe_id)


async def lock_object(session: AsyncSession, object_id: str) -> None:
    """Have an object of Stripe's read and written here alone, until the transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"km.stripe.{object_id}", 0))))


async def _write(
    ctx: StripeContext, session: AsyncSession, row: StripeSubscription | None, state: SubscriptionState
) -> None:
    now = ctx.now
    status_before = None if row is None else row.status
    period_before = None if row is None else row.current_period_start
    prices = [(item.price_id, item.quantity) for item in state.items]
    planned = () if state.planned is None else state.planned.prices
    known = await known_prices(session, {price_id for price_id, _ in (*prices, *planned)})
    checkout_id = None if row is not None else await _checkout_of(session, state)
    if row is None and checkout_id is not None:
        subscription = await begin_subscription(session, checkout_id, state, holding_of(prices, known), now=now)
    elif row is not None:
        account = select(Account.id).where(Account.id == row.account_id).with_for_update(key_share=True)
        await session.execute(account)
        subscription = await locked_subscription(session, row.subscription_id)
        now = _not_before(now, row, subscription)
    counted = {one.plan_version_id: one.quantity for one in subscription.add_ons if one.ends_at is None}
    held = holding_of(prices, known, counted_here=counted)
    later = None if state.planned is None else holding_of(planned, known, counted_here=counted)
    row = await write_row(session, row, subscription, state, held, now=now)
    if checkout_id is not None:
        await want_rest(session, row, checkout_id, now=now)
    await note_items(session, state, known)
    await note_discounts(session, row.subscription_id, state, now=now)
    seen = Seen(state=state, held=held, later=later, setup_fee_at=row.setup_fee_at)
    wanted = None if held is None else _wanted_here(seen, held, now=now)
    if wanted is None:
        log.warning("stripe_items_unknown", stripe_id=state.stripe_id, prices=[one for one, _ in prices])
    if not await _ends_here_first(session, subscription, state):
        await follow(session, subscription, state, wanted, now=now)
    await note_spans(session, seen, subscription=subscription, period_before=period_before, now=now)
    await settle_changes(session, row, seen, now=now)
    await ctx.at(now).subscription_seen(
        session,
        SubscriptionSeen(
            account_id=row.account_id,
            subscription_id=row.subscription_id,
            stripe_id=state.stripe_id,
            status_before=status_before,
            status=state.status,
        ),
    )


def _not_before(now: datetime, row: StripeSubscription, subscription: Subscription) -> datetime:
    """Return the moment to write for: whoever waited, for Stripe or for a lock, has an old one.

    What was done meanwhile for a later moment is not done over for an earlier one.
    """
    applied = (phase.applied_at for phase in subscription.phases if phase.applied_at is not None)
    return max(now, row.read_at, *applied)


def _wanted_here(seen: Seen, held: Holding, *, now: datetime) -> Wanted:
    """Return what ours is to have. A planned change is binding: within the hour of Stripe's, ours is made."""
    planned = seen.state.planned
    ends_at = None if seen.state.ends_at is None else hour_here(seen.state.ends_at)
    if planned is None or seen.later is None:
        return Wanted(held, None, ends_at)
    at = hour_here(planned.starts_at)
    if at <= now:
        return Wanted(seen.later, None, ends_at)
    return Wanted(held, (at, seen.later), ends_at)


async def _ends_here_first(session: AsyncSession, subscription: Subscription, state: SubscriptionState) -> bool:
    """Say whether ours is to end with its trial, and Stripe has not been told so yet: nothing is followed then."""
    if subscription.status != "trialing" or subscription.ends_at is None or state.ends_at is not None:
        return False
    return state.status == "trialing" and await is_beginning(session, subscription.id)


async def _checkout_of(session: AsyncSession, state: SubscriptionState) -> str:
    """Return the id of the checkout that a subscription came of.

    Raises:
        NotYetError: we do not know it.
    """
    checkout_id = state.metadata.get("km_object", "")
    if await session.get(StripeCheckout, checkout_id) is None:
        raise NotYetError(f"checkout {checkout_id} of subscription {state.stripe_id} is not known")
    return checkout_id
