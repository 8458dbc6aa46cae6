"""Carrying out what is wanted of subscriptions at Stripe: a row first, then calls, then what Stripe shows.

A change is taken up by the request that wanted it, and by a worker where that was cut off, as often as need be.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import KmError, NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.calls import make_call
from control_plane.stripe_sync.subscriptions.lookups import known_prices
from control_plane.stripe_sync.subscriptions.model import holding_of
from control_plane.stripe_sync.subscriptions.reading import read_subscription
from control_plane.stripe_sync.subscriptions.refusals import ChangeInProgressError
from control_plane.stripe_sync.subscriptions.settling import GIVEN_UP, OPEN, refuse_change
from control_plane.stripe_sync.subscriptions.steps import Call, Kind, Outcome, Seen, next_step
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeSubscription
from control_plane.stripe_sync.subscriptions.usage_first import flush_usage
from control_plane.stripe_sync.subscriptions.wanted import PREVIEW_HOLDS
from control_plane.subscriptions.queries import subscription as subscription_of

MAX_STEPS: Final = 8
LEASE: Final = timedelta(minutes=2)
PENDING_AGAIN: Final = timedelta(minutes=10)
LONGEST_PAUSE: Final = timedelta(minutes=30)
# before these, what was used until now is reported: Stripe bills it at once
_BILLS_USAGE: Final = frozenset({Call.UPDATE_ITEMS, Call.END_NOW})
# same key, other words: the change looks another way by now, and takes another key
_KEY_USED: Final = "idempotency_error"
log = structlog.get_logger(__name__)


async def want_change(
    session: AsyncSession,
    row: StripeSubscription,
    kind: Kind,
    wanted: dict[str, Any],
    *,
    actor: str,
    now: datetime,
) -> StripeChange:
    """Write down what is wanted of a subscription whose account is locked; to be carried out after the commit.

    Raises:
        ChangeInProgressError: another change is not through.
    """
    open_one = await session.scalar(
        select(StripeChange).where(
            StripeChange.subscription_id == row.subscription_id, StripeChange.state.in_(OPEN)
        )
    )
    if open_one is not None:
        until = row.pending_update_until if open_one.state == "pending" else None
        raise ChangeInProgressError(open_one.id, waits_until=until)
    change = StripeChange(
        id=new_id("chg", now),
        subscription_id=row.subscription_id,
        kind=kind.value,
        wanted=wanted,
        state="wanted",
        attempt=1,
        tries=0,
        problem_code="",
        problem="",
        requested_by=actor,
        created_at=now,
        next_try_at=now + LEASE,
    )
    session.add(change)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="stripe_change.wanted",
        entity_type="subscription",
        entity_id=row.subscription_id,
        before=None,
        after={"change_id": change.id, "kind": change.kind, "wanted": wanted},
        now=now,
    )
    return change


async def carry_out(ctx: StripeContext, change_id: str) -> StripeChange:
    """Do what is left to do for a change, and bring ours to what Stripe then shows; commits. Repeatable.

    A refusal of Stripe's is noted at the change. Where Stripe cannot be reached, the change stays, and says so
    in `problem`: a worker tries again.

    Raises:
        NotFoundError.
    """
    change, stripe_id = await _take(ctx, change_id)
    if change.state not in OPEN:
        return change
    try:
        await _steps(ctx, change, stripe_id)
        await apply_subscription(ctx, stripe_id)
    except StripeUnavailable as error:
        await _later(ctx, change_id, error)
    except KmError as error:
        await _refused(ctx, change_id, error)
    async with ctx.sessions() as session, session.begin():
        found = await session.get_one(StripeChange, change_id, with_for_update=True, populate_existing=True)
        if found.state == "pending":
            found.next_try_at = ctx.now + PENDING_AGAIN
    return found


async def give_up(ctx: StripeContext, subscription_id: str, *, actor: str) -> StripeChange | None:
    """Void the invoice that a change waits for, so that it is not made; commits. None where none waits.

    If it is paid at this moment, the change is made after all.

    Raises:
        StripeUnavailable.
    """
    async with ctx.sessions() as session, session.begin():
        statement = select(StripeChange).where(
            StripeChange.subscription_id == subscription_id, StripeChange.state == "pending"
        )
        change = await session.scalar(statement.with_for_update())
        row = await session.get(StripeSubscription, subscription_id)
        if change is None or row is None:
            return None
        change.wanted = {**change.wanted, GIVEN_UP: actor}
        change.tries += 1
        stripe_id, invoice_id = row.stripe_id, row.latest_invoice_id
    if invoice_id is not None:
        # made void twice is void, and Stripe repeats a failure under its key for a day
        key = options(f"km:{ctx.config.installation}:change:{change.id}:give_up:{change.tries}")
        try:
            await ctx.stripe.call(lambda c: c.v1.invoices.void_invoice_async(invoice_id, None, key))
        except StripeRefused as error:
            log.info("stripe_invoice_not_voided", change_id=change.id, problem=error.sentence)
    await apply_subscription(ctx, stripe_id)
    async with ctx.sessions() as session:
        return await session.get_one(StripeChange, change.id)


async def due_changes(session: AsyncSession, *, now: datetime, limit: int) -> Sequence[str]:
    """Return the changes that are to be taken up: those left lying, and those that wait for a payment."""
    statement = (
        select(StripeChange.id)
        .where(StripeChange.state.in_(OPEN), StripeChange.next_try_at <= now)
        .order_by(StripeChange.next_try_at)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def open_changes(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, StripeChange]:
    """Return, by subscription, the change that is not through at Stripe."""
    statement = select(StripeChange).where(
        is_any_of(StripeChange.subscription_id, subscription_ids), StripeChange.state.in_(OPEN)
    )
    return {change.subscription_id: change for change in await session.scalars(statement)}


async def changes_of(session: AsyncSession, subscription_id: str) -> Sequence[StripeChange]:
    """Return the last hundred changes of a subscription, newest first."""
    statement = (
        select(StripeChange)
        .where(StripeChange.subscription_id == subscription_id)
        .order_by(StripeChange.id.desc())
        .limit(100)
    )
    return (await session.scalars(statement)).all()


async def look(ctx: StripeContext, stripe_id: str) -> Seen:
    """Read a subscription at Stripe and return it with what it holds in our terms; writes nothing."""
    state = await read_subscription(ctx.stripe, stripe_id)
    prices = [(item.price_id, item.quantity) for item in state.items]
    planned = () if state.planned is None else state.planned.prices
    async with ctx.sessions() as session:
        known = await known_prices(session, {price_id for price_id, _ in (*prices, *planned)})
        row = await session.scalar(select(StripeSubscription).where(StripeSubscription.stripe_id == stripe_id))
        counted = {}
        if row is not None:
            ours = await subscription_of(session, row.subscription_id)
            counted = {one.plan_version_id: one.quantity for one in ours.add_ons if one.ends_at is None}
    return Seen(
        state=state,
        held=holding_of(prices, known, counted_here=counted),
        later=None if state.planned is None else holding_of(planned, known, counted_here=counted),
        setup_fee_at=None if row is None else row.setup_fee_at,
    )


async def _take(ctx: StripeContext, change_id: str) -> tuple[StripeChange, str]:
    async with ctx.sessions() as session, session.begin():
        change = await session.get(StripeChange, change_id, with_for_update=True, populate_existing=True)
        if change is None:
            raise NotFoundError("change", change_id)
        stripe_id = (await session.get_one(StripeSubscription, change.subscription_id)).stripe_id
        if change.state in OPEN:
            change.state = "asked" if change.state == "wanted" else change.state
            change.asked_at = change.asked_at or ctx.now
            change.tries += 1
            change.next_try_at = ctx.now + max(LEASE, _pause(change))
    return change, stripe_id


def _pause(change: StripeChange) -> timedelta:
    return min(LONGEST_PAUSE, timedelta(seconds=2 ** min(change.tries, 12)))


async def _steps(ctx: StripeContext, change: StripeChange, stripe_id: str) -> None:
    refused: StripeRefused | None = None
    for _ in range(MAX_STEPS):
        seen = await look(ctx, stripe_id)
        step = next_step(Kind(change.kind), change.wanted, seen, was_pending=change.state == "pending")
        if isinstance(step, Outcome):
            return
        if refused is not None:
            raise refused
        if step in _BILLS_USAGE and seen.state.status != "trialing":
            await flush_usage(ctx, change.subscription_id, until=ctx.now)
        if step is Call.UPDATE_ITEMS and _is_stale(change, ctx.now):
            await _prorate_anew(ctx, change)
        try:
            await make_call(ctx, step, change, seen)
        except StripeRefused as error:
            # it may have come through before, and what it asks for be there: look once more
            refused = error
            continue
        if step is Call.CHARGE_SETUP_FEE:
            await _note_setup_fee(ctx, change)


def _is_stale(change: StripeChange, now: datetime) -> bool:
    return now - datetime.fromisoformat(change.wanted["proration_at"]) > 2 * PREVIEW_HOLDS


async def _prorate_anew(ctx: StripeContext, change: StripeChange) -> None:
    """Have a change that could not be made for hours cost what it costs now: nobody has had it in between."""
    async with ctx.sessions() as session, session.begin():
        found = await session.get_one(StripeChange, change.id, with_for_update=True, populate_existing=True)
        found.wanted = {**found.wanted, "proration_at": ctx.now.replace(microsecond=0).isoformat()}
        found.attempt += 1
    change.wanted, change.attempt = found.wanted, found.attempt


async def _note_setup_fee(ctx: StripeContext, change: StripeChange) -> None:
    async with ctx.sessions() as session, session.begin():
        row = await session.get_one(
            StripeSubscription, change.subscription_id, with_for_update=True, populate_existing=True
        )
        row.setup_fee_at = row.setup_fee_at or ctx.now


async def _later(ctx: StripeContext, change_id: str, error: StripeUnavailable) -> None:
    async with ctx.sessions() as session, session.begin():
        change = await session.get_one(StripeChange, change_id, with_for_update=True, populate_existing=True)
        if change.state not in OPEN:
            return
        change.problem_code, change.problem = error.code, error.sentence
        change.attempt += error.spent_key
        change.next_try_at = ctx.now + _pause(change)
        log.warning("stripe_change_waits", change_id=change_id, kind=change.kind, problem=error.sentence)


async def _refused(ctx: StripeContext, change_id: str, error: KmError) -> None:
    async with ctx.sessions() as session, session.begin():
        change = await session.get_one(StripeChange, change_id, with_for_update=True, populate_existing=True)
        if change.state not in OPEN:
            return
        if isinstance(error, StripeRefused) and error.stripe_code == _KEY_USED:
            change.attempt += 1
            change.next_try_at = ctx.now
            return
        code = error.stripe_code or error.code if isinstance(error, StripeRefused) else error.code
        await refuse_change(session, change, code=code, sentence=error.message, now=ctx.now)
        log.info("stripe_change_refused", change_id=change_id, kind=change.kind, code=code)
