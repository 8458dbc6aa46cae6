"""Referrals: an account that brings another is rewarded when that one pays for the first time.

Nothing here commits. What decides about one account, who brought it and its first payment, is decided under one
lock; who brought whom is decided one at a time, so that nobody brings oneself by way of others.
"""

import secrets
from datetime import datetime
from typing import Protocol

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import check_currency
from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.queries import account as account_of
from control_plane.accounts.tables import Account
from control_plane.billing.balance.operations import adjust_balance
from control_plane.billing.discounts.tables import FirstPayment, Referral, ReferralCode, ReferralReward
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import CROCKFORD
from gateway_contract.records import AccountStatus

SYSTEM = "system:referrals"
CODE_LENGTH = 8
MAX_REWARD_MINOR = 10**12
_ASSIGNING = "km.referrals"  # who brought whom is decided one at a time


class PaidInvoice(Protocol):
    """What is asked of an invoice that was paid. `amount_due_minor`: what was left to pay in money."""

    @property
    def id(self) -> str: ...
    @property
    def account_id(self) -> str: ...
    @property
    def amount_due_minor(self) -> int: ...


class ReferralRefusedError(ConflictError):
    """The account cannot have been brought by that one."""


def _refused(code: str, message: str) -> ReferralRefusedError:
    return ReferralRefusedError(code, message)


async def referral_code(session: AsyncSession, *, account_id: str, now: datetime) -> str:
    """Return the code that an account gives to those whom it brings; made when it is first asked for.

    Raises:
        NotFoundError, AccountDeletedError.
    """
    account = await account_of(session, account_id)
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    while True:
        found = await session.scalar(select(ReferralCode.code).where(ReferralCode.account_id == account_id))
        if found is not None:
            return found
        code = "".join(secrets.choice(CROCKFORD) for _ in range(CODE_LENGTH)).upper()
        # taken by another account, or given to this one meanwhile: look again
        await session.execute(
            insert(ReferralCode).values(account_id=account_id, code=code, created_at=now).on_conflict_do_nothing()
        )


async def set_reward(
    session: AsyncSession, *, currency: str, amount_minor: int | None, actor: str, now: datetime
) -> None:
    """Set what a new paying account is worth to referrers who pay in a currency; None: nothing, none are taken.

    Accounts that were brought before keep what was promised for them.

    Raises:
        ValidationFailedError: no such currency, or not an amount above zero.
    """
    check_currency(currency)
    if amount_minor is not None and not 1 <= amount_minor <= MAX_REWARD_MINOR:
        raise ValidationFailedError("amount", "must be above zero, and not beyond any real amount")
    row = await session.get(ReferralReward, currency, with_for_update=True, populate_existing=True)
    before = None if row is None else row.amount_minor
    if before == amount_minor:
        return
    if row is not None and amount_minor is None:
        await session.delete(row)
    elif row is not None and amount_minor is not None:
        row.amount_minor, row.updated_at = amount_minor, now
    else:
        session.add(ReferralReward(currency=currency, amount_minor=amount_minor, updated_at=now))
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="referral_reward.set",
        entity_type="referral_reward",
        entity_id=currency,
        before=None if before is None else {"amount_minor": before},
        after=None if amount_minor is None else {"amount_minor": amount_minor},
        now=now,
    )


async def assign_referrer(
    session: AsyncSession, *, account_id: str, code: str, actor: str, now: datetime
) -> Referral:
    """Note that an account was brought by the one whose referral code this is; once for ever.

    The reward is promised at today's amount in the referrer's currency. The same code again changes nothing.

    Raises:
        NotFoundError, AccountDeletedError. ReferralRefusedError: the account was brought by another, has paid
        before, would have brought itself, or there is no reward in the referrer's currency.
    """
    await _lock(session, _ASSIGNING)
    await _lock(session, _about(account_id))
    account = await account_of(session, account_id)
    text = code.strip().upper()
    referrer_id = await session.scalar(select(ReferralCode.account_id).where(ReferralCode.code == text))
    if referrer_id is None:
        raise NotFoundError("referral_code", text)
    referrer = await account_of(session, referrer_id)
    for one in (account, referrer):
        if one.status == AccountStatus.DELETED:
            raise AccountDeletedError(one.id)
    before = await session.get(Referral, account_id)
    if before is not None and before.referrer_id == referrer_id:
        return before
    await _check(session, account, referrer, before)
    reward = await session.get(ReferralReward, referrer.currency)
    if reward is None:
        raise _refused(
            "referral_reward_missing",
            f"There is no reward for referrers who pay in {referrer.currency}: set one, or refer without a code.",
        )
    referral = Referral(
        account_id=account_id,
        referrer_id=referrer_id,
        state="pending",
        reward_minor=reward.amount_minor,
        currency=referrer.currency,
        created_at=now,
    )
    session.add(referral)
    await session.flush()
    await _record(session, referral, "referral.assigned", actor=actor, now=now)
    return referral


async def rewarded_with(session: AsyncSession, account_id: str) -> set[str]:
    """Return the account, and who is rewarded if it pays now for the first time: both are to be locked together.

    Whoever that is stays so until the transaction ends. To be asked before anything is locked.
    """
    await _lock(session, _about(account_id))
    referrers = await session.scalars(
        select(Referral.referrer_id).where(Referral.account_id == account_id, Referral.state == "pending")
    )
    return {account_id, *referrers}


async def reward_first_payment(session: AsyncSession, *, invoice: PaidInvoice, now: datetime) -> Referral | None:
    """Note an account's first payment, and reward whoever brought it; returns the referral that was settled.

    To be called with every invoice that was paid, in the transaction that notes it, which has locked the accounts
    of `rewarded_with`. Only the first one for which there was something to pay in money counts, once for ever:
    what credits or the balance paid brings no reward.
    """
    if invoice.amount_due_minor <= 0:
        return None
    await _lock(session, _about(invoice.account_id))
    first = await session.scalar(
        insert(FirstPayment)
        .values(account_id=invoice.account_id, invoice_id=invoice.id, paid_at=now)
        .on_conflict_do_nothing()
        .returning(FirstPayment.invoice_id)
    )
    if first is None:
        return None
    referral = await session.get(Referral, invoice.account_id, populate_existing=True)
    if referral is None:
        return None
    referrer = await account_of(session, referral.referrer_id)
    forfeited = referrer.status == AccountStatus.DELETED
    referral.state = "forfeited" if forfeited else "rewarded"
    referral.invoice_id, referral.settled_at = invoice.id, now
    await session.flush()
    if not forfeited:
        await adjust_balance(
            session,
            account_id=referral.referrer_id,
            currency=referral.currency,
            amount_minor=referral.reward_minor,
            reason=f"Referral of account {referral.account_id}",
            idempotency_key=f"referral:{referral.account_id}",
            actor=SYSTEM,
            now=now,
        )
    await _record(session, referral, f"referral.{referral.state}", actor=SYSTEM, now=now)
    return referral


async def _check(session: AsyncSession, account: Account, referrer: Account, before: Referral | None) -> None:
    if before is not None:
        raise _refused(
            "referred_before", f"Account {account.id} was brought by {before.referrer_id}; that does not change."
        )
    if referrer.id == account.id:
        raise _refused("referred_itself", "An account cannot use its own referral code.")
    if await session.get(FirstPayment, account.id) is not None:
        raise _refused(
            "referred_too_late",
            f"Account {account.id} has paid an invoice already: only new customers are brought.",
        )
    if await _was_brought_by(session, referrer.id, account.id):
        raise _refused(
            "referred_in_a_circle",
            f"Account {referrer.id} was itself brought by {account.id}, or by one it brought.",
        )


async def _was_brought_by(session: AsyncSession, account_id: str, other_id: str) -> bool:
    chain = select(literal(account_id).label("account_id")).cte("chain", recursive=True)
    chain = chain.union(select(Referral.referrer_id).where(Referral.account_id == chain.c.account_id))
    return (await session.scalar(select(literal(1)).where(chain.c.account_id == other_id))) is not None


def _about(account_id: str) -> str:
    return f"km.referrals.{account_id}"


async def _lock(session: AsyncSession, name: str) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


async def _record(session: AsyncSession, referral: Referral, action: str, *, actor: str, now: datetime) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="account",
        entity_id=referral.account_id,
        before=None,
        after={
            "referrer_id": referral.referrer_id,
            "state": referral.state,
            "reward_minor": referral.reward_minor,
            "currency": referral.currency,
            "invoice_id": referral.invoice_id,
        },
        now=now,
    )
