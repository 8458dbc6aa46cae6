"""Changing accounts. Nothing here commits; every change writes its audit row."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import (
    AccountFacts,
    check_currency,
    check_email,
    check_external_id,
    check_time_zone,
)
from control_plane.accounts.tables import Account
from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue, enqueue_many
from control_plane.foundation.text import clean_name
from gateway_contract.records import AccountStatus


class AccountDeletedError(ConflictError):
    """The account was deleted and does not change any more."""

    def __init__(self, account_id: str) -> None:
        super().__init__("account_deleted", f"Account {account_id} was deleted.")


class ExternalIdTakenError(ConflictError):
    """Another account has that external id."""

    def __init__(self, external_id: str, account_id: str) -> None:
        super().__init__("external_id_taken", f"Account {account_id} has the external id {external_id} already.")


async def create_account(
    session: AsyncSession,
    *,
    name: str,
    email: str | None = None,
    currency: str = "USD",
    time_zone: str = "UTC",
    external_id: str | None = None,
    actor: str,
    now: datetime,
) -> Account:
    """Make an account. `external_id` is what another system calls it.

    Raises:
        ValidationFailedError: name, email, currency, time zone or external id are not usable.
        ExternalIdTakenError: another account has the external id.
    """
    if external_id is not None:
        await _require_free(session, check_external_id(external_id))
    account = Account(
        id=new_id("acc", now),
        external_id=external_id,
        name=clean_name(name),
        email=check_email(email),
        status=AccountStatus.ACTIVE,
        currency=check_currency(currency),
        time_zone=check_time_zone(time_zone),
        gateway_version=1,
        created_at=now,
    )
    session.add(account)
    await session.flush()
    await enqueue(session, topic=Topic.ACCOUNT_CHANGED, entity_id=account.id, now=now)
    await _record(session, account, action="account.created", before=None, actor=actor, now=now)
    return account


async def rename_account(
    session: AsyncSession, *, account_id: str, name: str, actor: str, now: datetime
) -> Account:
    """Give an account another name.

    Raises:
        NotFoundError, AccountDeletedError, ValidationFailedError: no such account, deleted, name not usable.
    """
    new_name = clean_name(name)
    account = await _locked(session, account_id)
    before = account_facts(account)
    account.name = new_name
    return await _changed(session, account, action="account.renamed", before=before, actor=actor, now=now)


async def suspend_account(session: AsyncSession, *, account_id: str, actor: str, now: datetime) -> Account:
    """Refuse all calls of the account until it is resumed. Suspending a suspended account changes nothing.

    Raises:
        NotFoundError, AccountDeletedError: no such account, or deleted.
    """
    return await _set_status(
        session, account_id, AccountStatus.SUSPENDED, action="account.suspended", actor=actor, now=now
    )


async def resume_account(session: AsyncSession, *, account_id: str, actor: str, now: datetime) -> Account:
    """Let a suspended account call again. Resuming an active account changes nothing.

    Raises:
        NotFoundError, AccountDeletedError: no such account, or deleted.
    """
    return await _set_status(
        session, account_id, AccountStatus.ACTIVE, action="account.resumed", actor=actor, now=now
    )


async def bump_gateway_version(session: AsyncSession, account_id: str, now: datetime) -> Account:
    """Lock the account's row until the transaction ends, raise its version, tell the projector.

    For every change that shows in the account's record. Takes the account's lock, so call it before locking
    anything that belongs to the account.

    Raises:
        NotFoundError, AccountDeletedError: no such account, or deleted.
    """
    account = await _locked(session, account_id)
    await _bump(session, account, now)
    return account


async def bump_gateway_versions(session: AsyncSession, account_ids: Collection[str], now: datetime) -> None:
    """Do the same for many accounts in a few statements; deleted and unknown ones are passed over."""
    locked = await session.scalars(
        select(Account.id)
        .where(is_any_of(Account.id, account_ids), Account.status != AccountStatus.DELETED)
        .order_by(Account.id)  # everybody locks in this order, so nobody waits in a circle
        .with_for_update(key_share=True)  # rows that only refer to an account, such as drafts, hold nobody up
    )
    found = locked.all()
    await session.execute(
        update(Account)
        .where(is_any_of(Account.id, found))
        .values(gateway_version=Account.gateway_version + 1)
        .execution_options(synchronize_session=False)
    )
    await enqueue_many(session, topic=Topic.ACCOUNT_CHANGED, entity_ids=found, now=now)


async def _locked(session: AsyncSession, account_id: str) -> Account:
    # rows that only refer to an account hold nobody up, nor keep us from changing it
    account = await session.get(Account, account_id, with_for_update={"key_share": True}, populate_existing=True)
    if account is None:
        raise NotFoundError("account", account_id)
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    return account


async def _require_free(session: AsyncSession, external_id: str) -> None:
    taken = await session.scalar(select(Account.id).where(Account.external_id == external_id))
    if taken is not None:
        raise ExternalIdTakenError(external_id, taken)


async def _set_status(
    session: AsyncSession, account_id: str, status: AccountStatus, *, action: str, actor: str, now: datetime
) -> Account:
    account = await _locked(session, account_id)
    if account.status == status:
        return account
    before = account_facts(account)
    account.status = status
    return await _changed(session, account, action=action, before=before, actor=actor, now=now)


async def _changed(
    session: AsyncSession, account: Account, *, action: str, before: AccountFacts, actor: str, now: datetime
) -> Account:
    await _bump(session, account, now)
    await _record(session, account, action=action, before=before, actor=actor, now=now)
    return account


async def _bump(session: AsyncSession, account: Account, now: datetime) -> None:
    account.gateway_version += 1
    await enqueue(session, topic=Topic.ACCOUNT_CHANGED, entity_id=account.id, now=now)


async def _record(
    session: AsyncSession, account: Account, *, action: str, before: AccountFacts | None, actor: str, now: datetime
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="account",
        entity_id=account.id,
        before=before.as_dict() if before else None,
        after=account_facts(account).as_dict(),
        now=now,
    )


def account_facts(account: Account) -> AccountFacts:
    """Return what the audit log keeps of an account."""
    return AccountFacts(
        account.name,
        account.email,
        str(account.status),
        account.currency,
        account.time_zone,
        account.external_id,
    )
