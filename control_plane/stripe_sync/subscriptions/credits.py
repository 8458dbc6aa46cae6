"""Referrals of customers that Stripe bills: first payments there count, and rewards go to the balance there.

A reward is an entry of the balance here. For a referrer whose invoices are Stripe's it is taken off that, in the
transaction that writes down that Stripe is to have it, and then Stripe is asked, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.balance.entries import BalanceTooLowError
from control_plane.billing.balance.operations import adjust_balance
from control_plane.billing.discounts.referrals import reward_first_payment, rewarded_with
from control_plane.billing.discounts.tables import FirstPayment, Referral
from control_plane.foundation.db import is_any_of
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.invoices.tables import StripeInvoice
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.customers import KEY_LIFE, customer_of
from control_plane.stripe_sync.subscriptions.model import LIVE_AT_STRIPE
from control_plane.stripe_sync.subscriptions.tables import StripeBalanceCredit, StripeSubscription

ACTOR: Final = "system:stripe"
UNFINISHED: Final = ("wanted", "asked")
# payments older than this were looked at when they came
RECENT: Final = timedelta(days=40)
AGAIN: Final = timedelta(minutes=1)
WITHOUT_CUSTOMER: Final = timedelta(hours=1)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PaidAtStripe:
    """A paid invoice of Stripe's, as referrals ask about it."""

    id: str
    account_id: str
    amount_due_minor: int


async def reward_payments_at_stripe(ctx: StripeContext, *, limit: int) -> int:
    """Count the first payments that accounts made at Stripe, and reward whoever brought them; returns how many."""
    async with ctx.sessions() as session:
        found = (
            await session.execute(
                select(StripeInvoice.account_id, func.min(StripeInvoice.id))
                .where(
                    StripeInvoice.status == "paid",
                    StripeInvoice.amount_paid_minor > 0,
                    StripeInvoice.created_at > ctx.now - RECENT,
                    ~select(literal(1)).where(FirstPayment.account_id == StripeInvoice.account_id).exists(),
                )
                .group_by(StripeInvoice.account_id)
                .limit(limit)
            )
        ).all()
    for account_id, _ in found:
        async with ctx.sessions() as session, session.begin():
            together = await rewarded_with(session, account_id)
            accounts = select(Account.id).where(is_any_of(Account.id, together)).order_by(Account.id)
            await session.execute(accounts.with_for_update(key_share=True))
            first = await _first_paid(session, account_id)
            if first is not None:
                await reward_first_payment(session, invoice=first, now=ctx.now)
    return len(found)


async def _first_paid(session: AsyncSession, account_id: str) -> PaidAtStripe | None:
    row = (
        await session.execute(
            select(StripeInvoice.id, StripeInvoice.amount_paid_minor)
            .where(
                StripeInvoice.account_id == account_id,
                StripeInvoice.status == "paid",
                StripeInvoice.amount_paid_minor > 0,
            )
            .order_by(StripeInvoice.created_at, StripeInvoice.id)
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else PaidAtStripe(row.id, account_id, row.amount_paid_minor)


async def move_rewards(ctx: StripeContext, *, limit: int) -> int:
    """Want rewards of referrers whom Stripe bills to be at Stripe; returns how many were wanted."""
    source = func.concat("referral:", Referral.account_id)
    billed = select(literal(1)).where(
        StripeSubscription.account_id == Referral.referrer_id,
        StripeSubscription.status.in_(sorted(LIVE_AT_STRIPE)),
        StripeSubscription.currency == Referral.currency,
    )
    moved = select(literal(1)).where(StripeBalanceCredit.source == source)
    async with ctx.sessions() as session:
        waiting = (
            await session.scalars(
                select(Referral)
                .where(
                    Referral.state == "rewarded",
                    Referral.settled_at > ctx.now - RECENT,
                    billed.exists(),
                    ~moved.exists(),
                )
                .limit(limit)
            )
        ).all()
    count = 0
    for referral in waiting:
        async with ctx.sessions() as session, session.begin():
            count += await _move(session, referral, now=ctx.now)
    return count


async def _move(session: AsyncSession, referral: Referral, *, now: datetime) -> bool:
    account = select(Account.id).where(Account.id == referral.referrer_id).with_for_update(key_share=True)
    await session.execute(account)
    source = f"referral:{referral.account_id}"
    there = select(StripeBalanceCredit.id).where(StripeBalanceCredit.source == source)
    if await session.scalar(there) is not None:
        return False
    credit = StripeBalanceCredit(
        id=new_id("sbc", now),
        account_id=referral.referrer_id,
        source=source,
        amount_minor=referral.reward_minor,
        currency=referral.currency,
        reason=f"Referral of account {referral.account_id}",
        state="wanted",
        attempt=1,
        problem="",
        created_at=now,
        next_try_at=now,
    )
    try:
        async with session.begin_nested():
            await adjust_balance(
                session,
                account_id=credit.account_id,
                currency=credit.currency,
                amount_minor=-credit.amount_minor,
                reason=f"Moved to Stripe: {credit.reason}",
                idempotency_key=f"stripe:{source}",
                actor=ACTOR,
                now=now,
            )
    except BalanceTooLowError:
        # an invoice of our own has used it up meanwhile: there is nothing left to move
        credit.state, credit.finished_at, credit.next_try_at = "refused", now, None
        credit.problem = "the balance was used up here"
    session.add(credit)
    return True


async def due_credits(session: AsyncSession, *, now: datetime, limit: int) -> Sequence[str]:
    """Return the credits that Stripe is to be asked for."""
    statement = (
        select(StripeBalanceCredit.id)
        .where(StripeBalanceCredit.state.in_(UNFINISHED), StripeBalanceCredit.next_try_at <= now)
        .order_by(StripeBalanceCredit.next_try_at)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def give_credit(ctx: StripeContext, credit_id: str) -> str:
    """Put a credit on the customer's balance at Stripe, once; commits. Returns its state."""
    async with ctx.sessions() as session, session.begin():
        credit = await session.get_one(
            StripeBalanceCredit, credit_id, with_for_update=True, populate_existing=True
        )
        customer = await customer_of(session, credit.account_id)
        if credit.state not in UNFINISHED:
            return credit.state
        if customer is None or customer.customer_id is None:
            # the customer was deleted at Stripe: the next one is made with the account's next purchase
            credit.next_try_at = ctx.now + WITHOUT_CUSTOMER
            return credit.state
        customer_id, asked_before = customer.customer_id, credit.state == "asked"
        credit.state, credit.next_try_at = "asked", ctx.now + AGAIN
    mark = {**ctx.config.metadata, "km_object": credit.id}
    params: Any = {
        "amount": -credit.amount_minor,
        "currency": credit.currency.lower(),
        "description": credit.reason,
        "metadata": mark,
    }
    key = options(f"km:{ctx.config.installation}:balance:{credit.id}:{credit.attempt}")
    try:
        made = None
        if asked_before and (credit.attempt > 1 or ctx.now - credit.created_at > KEY_LIFE):
            made = await _find(ctx, customer_id, credit.id)
        if made is None:
            made = (
                await ctx.stripe.call(
                    lambda c: c.v1.customers.balance_transactions.create_async(customer_id, params, key)
                )
            ).id
    except StripeUnavailable as error:
        await _note(ctx, credit_id, problem=error.sentence, attempt=credit.attempt + error.spent_key)
        return "asked"
    except StripeRefused as error:
        await _give_back(ctx, credit_id, error.message)
        return "refused"
    await _note(ctx, credit_id, transaction_id=made)
    return "done"


async def _find(ctx: StripeContext, customer_id: str, credit_id: str) -> str | None:
    listed: Any = {"limit": 100}
    found = ctx.stripe.every(lambda c: c.v1.customers.balance_transactions.list_async(customer_id, listed))
    async for one in found:
        if one.metadata is not None and one.metadata.to_dict().get("km_object") == credit_id:
            return one.id
    return None


async def _note(
    ctx: StripeContext,
    credit_id: str,
    *,
    problem: str = "",
    attempt: int | None = None,
    transaction_id: str | None = None,
) -> None:
    async with ctx.sessions() as session, session.begin():
        credit = await session.get_one(
            StripeBalanceCredit, credit_id, with_for_update=True, populate_existing=True
        )
        credit.problem, credit.attempt = problem, attempt or credit.attempt
        if transaction_id is not None and credit.state in UNFINISHED:
            credit.state, credit.transaction_id = "done", transaction_id
            credit.finished_at, credit.next_try_at = ctx.now, None


async def _give_back(ctx: StripeContext, credit_id: str, problem: str) -> None:
    async with ctx.sessions() as session, session.begin():
        credit = await session.get_one(StripeBalanceCredit, credit_id)
        account = select(Account.id).where(Account.id == credit.account_id).with_for_update(key_share=True)
        await session.execute(account)
        credit = await session.get_one(
            StripeBalanceCredit, credit_id, with_for_update=True, populate_existing=True
        )
        if credit.state not in UNFINISHED:
            return
        credit.state, credit.problem, credit.finished_at, credit.next_try_at = "refused", problem, ctx.now, None
        await adjust_balance(
            session,
            account_id=credit.account_id,
            currency=credit.currency,
            amount_minor=credit.amount_minor,
            reason=f"Not taken by Stripe: {credit.reason}",
            idempotency_key=f"stripe:back:{credit.source}",
            actor=ACTOR,
            now=ctx.now,
        )
        log.warning("stripe_credit_refused", credit_id=credit_id, problem=problem)
