"""Changing a balance by hand, or for one invoice or credit note. Nothing here commits."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import check_currency
from control_plane.accounts.queries import account
from control_plane.billing.balance.entries import NewEntry, add_entries, lock_balances
from control_plane.billing.balance.tables import BalanceEntry
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, ValidationFailedError

MAX_REASON = 1_000
MAX_AMOUNT_MINOR = 10**15


class IdempotencyKeyTakenError(ConflictError):
    """The key was used for something else before."""

    def __init__(self, key: str) -> None:
        super().__init__(
            "idempotency_key_taken", f"The idempotency key {key} was used with other values: take another."
        )


async def adjust_balance(
    session: AsyncSession,
    *,
    account_id: str,
    currency: str,
    amount_minor: int,
    reason: str,
    idempotency_key: str | None = None,
    actor: str,
    now: datetime,
) -> BalanceEntry:
    """Add an amount to an account's balance, or take one away (below 0). The same key again: the first entry.

    Raises:
        NotFoundError: no such account. ValidationFailedError: no reason, amount 0, or no such currency.
        BalanceTooLowError: it would fall below nothing. IdempotencyKeyTakenError.
    """
    if not reason.strip() or len(reason) > MAX_REASON:
        raise ValidationFailedError("reason", f"must be 1 to {MAX_REASON} characters")
    if amount_minor == 0 or abs(amount_minor) > MAX_AMOUNT_MINOR:
        raise ValidationFailedError("amount_minor", "must not be 0, nor beyond any real amount")
    of = account_id, check_currency(currency)
    await account(session, account_id)
    balances = await lock_balances(session, {of}, create={of})
    if idempotency_key is not None:
        wanted = BalanceEntry.account_id == account_id, BalanceEntry.idempotency_key == idempotency_key
        before = await session.scalar(select(BalanceEntry).where(*wanted))
        if before is not None:
            if (before.currency, before.amount_minor, before.reason) != (currency, amount_minor, reason):
                raise IdempotencyKeyTakenError(idempotency_key)
            return before
    entry = NewEntry(
        account_id=account_id,
        currency=currency,
        kind="adjustment",
        amount_minor=amount_minor,
        reason=reason,
        idempotency_key=idempotency_key,
        author=actor,
    )
    (entry_id,) = await add_entries(session, [entry], balances, now=now)
    await record_change(
        session,
        actor=actor,
        action="balance.adjusted",
        entity_type="account",
        entity_id=account_id,
        before={"currency": currency, "balance_minor": balances[of]},
        after={
            "currency": currency,
            "balance_minor": balances[of] + amount_minor,
            "amount_minor": amount_minor,
            "reason": reason,
        },
        now=now,
    )
    return await session.get_one(BalanceEntry, entry_id)


async def add_to_balance(session: AsyncSession, entry: NewEntry, *, now: datetime) -> str:
    """Add one entry for an invoice, payment or credit note; whoever calls writes the audit row. Returns its id.

    Raises:
        BalanceTooLowError: it would fall below nothing.
    """
    of = entry.account_id, entry.currency
    (entry_id,) = await add_entries(session, [entry], await lock_balances(session, {of}, create={of}), now=now)
    return entry_id
