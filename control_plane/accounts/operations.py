"""Changing accounts and tokens. Nothing here commits; every change writes its audit row."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import (
    AccountFacts,
    Role,
    check_currency,
    check_email,
    check_time_zone,
    generate_token,
    hash_token,
    is_token,
)
from control_plane.accounts.tables import Account, ApiToken
from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue, enqueue_many
from control_plane.foundation.text import clean_name
from gateway_contract.records import AccountStatus

LAST_USED_PRECISION = timedelta(minutes=1)


class AccountDeletedError(ConflictError):
    """The account was deleted and does not change any more."""

    def __init__(self, account_id: str) -> None:
        super().__init__("account_deleted", f"Account {account_id} was deleted.")


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token; `text` is shown once and kept nowhere."""

    token: ApiToken
    text: str = field(repr=False)


async def create_account(
    session: AsyncSession,
    *,
    name: str,
    email: str | None = None,
    currency: str = "USD",
    time_zone: str = "UTC",
    actor: str,
    now: datetime,
) -> Account:
    """Make an account.

    Raises:
        ValidationFailedError: name, email, currency or time zone are not usable.
    """
    account = Account(
        id=new_id("acc", now),
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
    before = _facts(account)
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
        .with_for_update()
    )
    found = locked.all()
    await session.execute(
        update(Account)
        .where(is_any_of(Account.id, found))
        .values(gateway_version=Account.gateway_version + 1)
        .execution_options(synchronize_session=False)
    )
    await enqueue_many(session, topic=Topic.ACCOUNT_CHANGED, entity_ids=found, now=now)


async def create_token(
    session: AsyncSession,
    *,
    name: str,
    role: Role | str,
    expires_at: datetime | None = None,
    actor: str,
    now: datetime,
) -> CreatedToken:
    """Make an API token; its text is returned here and never again.

    Raises:
        ValidationFailedError: unknown role, name not usable, expiry not in the future.
    """
    if role not in tuple(Role):
        raise ValidationFailedError("role", f"must be one of {', '.join(Role)}")
    if expires_at is not None and expires_at <= now:
        raise ValidationFailedError("expires_at", "must be in the future")
    text = generate_token()
    token = ApiToken(
        id=new_id("tok", now),
        name=clean_name(name),
        token_hash=hash_token(text),
        role=str(role),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(token)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="api_token.created",
        entity_type="api_token",
        entity_id=token.id,
        before=None,
        after={
            "name": token.name,
            "role": token.role,
            "expires_at": expires_at.isoformat() if expires_at else None,
        },
        now=now,
    )
    return CreatedToken(token=token, text=text)


async def revoke_token(session: AsyncSession, *, token_id: str, actor: str, now: datetime) -> ApiToken:
    """Refuse the token from now on. Revoking a revoked token changes nothing.

    Raises:
        NotFoundError: no such token.
    """
    token = await session.get(ApiToken, token_id, with_for_update=True, populate_existing=True)
    if token is None:
        raise NotFoundError("api_token", token_id)
    if token.revoked_at is None:
        token.revoked_at = now
        await record_change(
            session,
            actor=actor,
            action="api_token.revoked",
            entity_type="api_token",
            entity_id=token.id,
            before={"revoked_at": None},
            after={"revoked_at": now.isoformat()},
            now=now,
        )
    return token


async def authenticate_token(session: AsyncSession, text: str, now: datetime) -> ApiToken | None:
    """Return the token that a text stands for, or None if unknown, revoked or expired.

    Notes when the token was last used, to the minute, so that most requests write nothing.
    """
    if not is_token(text):
        return None
    token = await session.scalar(select(ApiToken).where(ApiToken.token_hash == hash_token(text)))
    if token is None or token.revoked_at is not None:
        return None
    if token.expires_at is not None and token.expires_at <= now:
        return None
    if token.last_used_at is None or token.last_used_at <= now - LAST_USED_PRECISION:
        await session.execute(
            update(ApiToken)
            .where(ApiToken.id == token.id)
            .where(or_(ApiToken.last_used_at.is_(None), ApiToken.last_used_at < now))
            .values(last_used_at=now)
        )
    return token


async def _locked(session: AsyncSession, account_id: str) -> Account:
    account = await session.get(Account, account_id, with_for_update=True, populate_existing=True)
    if account is None:
        raise NotFoundError("account", account_id)
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    return account


async def _set_status(
    session: AsyncSession, account_id: str, status: AccountStatus, *, action: str, actor: str, now: datetime
) -> Account:
    account = await _locked(session, account_id)
    if account.status == status:
        return account
    before = _facts(account)
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
        after=_facts(account).as_dict(),
        now=now,
    )


def _facts(account: Account) -> AccountFacts:
    return AccountFacts(account.name, account.email, str(account.status), account.currency, account.time_zone)
