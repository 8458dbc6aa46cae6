"""Issuing, restricting, rotating and revoking API keys.

Nothing here commits. Every change raises the key's version under its row's lock, writes its audit row and tells
the projector.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.tables import Account
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.foundation.text import clean_name
from control_plane.foundation.unset import UNSET, Unset
from control_plane.foundation.windows import check_windows, windows_from_json, windows_to_json
from control_plane.keys.model import KeyOrigin, check_expiry, check_ip_ranges, check_quota_units, check_scopes
from control_plane.keys.tables import ApiKey
from gateway_contract.api_keys import api_key_hint, generate_api_key, hash_api_key
from gateway_contract.modes import Mode
from gateway_contract.records import FULL_SCOPE, AccountStatus, KeyStatus, Window

MAX_ROTATION_OVERLAP = timedelta(days=90)


class KeyRevokedError(ConflictError):
    """The key was revoked and does not change any more."""

    def __init__(self, key_id: str) -> None:
        super().__init__("api_key_revoked", f"API key {key_id} was revoked.")


class KeyExpiredError(ConflictError):
    """The key has expired: there is nothing to hand over from."""

    def __init__(self, key_id: str) -> None:
        super().__init__("api_key_expired", f"API key {key_id} has expired; issue a new one.")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key; `text` is shown once and kept nowhere."""

    key: ApiKey
    text: str = field(repr=False)


async def issue_key(
    session: AsyncSession,
    *,
    account_id: str,
    name: str,
    mode: Mode | str,
    scopes: Iterable[str] = (FULL_SCOPE,),
    windows: Iterable[Window] = (),
    quota_units: int | None = None,
    ip_ranges: Iterable[str] = (),
    expires_at: datetime | None = None,
    actor: str,
    now: datetime,
) -> IssuedKey:
    """Make a key; its text is returned here and never again.

    Raises:
        ValidationFailedError: a restriction is not usable; names the field.
        NotFoundError, AccountDeletedError: no such account, or deleted.
    """
    if mode not in tuple(Mode):
        raise ValidationFailedError("mode", f"must be one of {', '.join(Mode)}")
    key = ApiKey(
        account_id=account_id,
        name=clean_name(name),
        mode=str(mode),
        scopes=check_scopes(scopes),
        windows=windows_to_json(check_windows(windows)),
        quota_units=check_quota_units(quota_units),
        ip_ranges=check_ip_ranges(ip_ranges),
        expires_at=check_expiry(expires_at, now=now),
    )
    await _require_account(session, account_id)
    return await _issue(session, key, action="api_key.issued", extra={}, actor=actor, now=now)


async def update_key(
    session: AsyncSession,
    *,
    key_id: str,
    name: str | Unset = UNSET,
    scopes: Iterable[str] | Unset = UNSET,
    windows: Iterable[Window] | Unset = UNSET,
    quota_units: int | Unset | None = UNSET,
    ip_ranges: Iterable[str] | Unset = UNSET,
    expires_at: datetime | Unset | None = UNSET,
    actor: str,
    now: datetime,
) -> ApiKey:
    """Change what is given and leave the rest. Giving what is already there changes nothing.

    Raises:
        ValidationFailedError: a restriction is not usable; names the field.
        NotFoundError, KeyRevokedError: no such key, or revoked.
    """
    changes: dict[str, Any] = {}
    if name is not UNSET:
        changes["name"] = clean_name(name)
    if scopes is not UNSET:
        changes["scopes"] = check_scopes(scopes)
    if windows is not UNSET:
        changes["windows"] = windows_to_json(check_windows(windows))
    if quota_units is not UNSET:
        changes["quota_units"] = check_quota_units(quota_units)
    if ip_ranges is not UNSET:
        changes["ip_ranges"] = check_ip_ranges(ip_ranges)
    if expires_at is not UNSET:
        changes["expires_at"] = check_expiry(expires_at, now=now)
    key = await _locked(session, key_id)
    return await _change(session, key, changes, action="api_key.updated", actor=actor, now=now)


async def rotate_key(
    session: AsyncSession, *, key_id: str, overlap: timedelta, actor: str, now: datetime
) -> IssuedKey:
    """Issue a key like this one and let this one end after `overlap` (0 to 90 days; 0 revokes it now).

    An earlier expiry of the old key stays; the new key keeps the old one's expiry, if it had any.

    Raises:
        ValidationFailedError: field `overlap`.
        NotFoundError, KeyRevokedError, KeyExpiredError: no such key, revoked, or expired.
    """
    if not timedelta(0) <= overlap <= MAX_ROTATION_OVERLAP:
        raise ValidationFailedError("overlap", f"must be between 0 and {MAX_ROTATION_OVERLAP.days} days")
    old = await _locked(session, key_id)
    if old.expires_at is not None and old.expires_at <= now:
        raise KeyExpiredError(key_id)
    fresh = ApiKey(
        account_id=old.account_id,
        name=old.name,
        mode=old.mode,
        scopes=list(old.scopes),
        windows=windows_to_json(windows_from_json(old.windows)),
        quota_units=old.quota_units,
        ip_ranges=list(old.ip_ranges),
        expires_at=old.expires_at,
    )
    changes: dict[str, Any] = {"status": KeyStatus.REVOKED.value, "revoked_at": now}
    if overlap:
        handover_ends_at = now + overlap
        changes = {"expires_at": min(old.expires_at or handover_ends_at, handover_ends_at)}
    await _change(session, old, changes, action="api_key.rotated_out", actor=actor, now=now)
    return await _issue(
        session, fresh, action="api_key.rotated_in", extra={"rotated_from": key_id}, actor=actor, now=now
    )


async def revoke_key(session: AsyncSession, *, key_id: str, actor: str, now: datetime) -> ApiKey:
    """Refuse the key from its next call on. Revoking a revoked key changes nothing.

    Raises:
        NotFoundError: no such key.
    """
    key = await session.get(ApiKey, key_id, with_for_update=True, populate_existing=True)
    if key is None:
        raise NotFoundError("api_key", key_id)
    if key.status == KeyStatus.REVOKED:
        return key
    changes = {"status": KeyStatus.REVOKED.value, "revoked_at": now}
    return await _change(session, key, changes, action="api_key.revoked", actor=actor, now=now)


async def _require_account(session: AsyncSession, account_id: str) -> None:
    # FOR KEY SHARE would not see a concurrent deletion through; FOR SHARE waits for it
    status = await session.scalar(
        select(Account.status).where(Account.id == account_id).with_for_update(read=True)
    )
    if status is None:
        raise NotFoundError("account", account_id)
    if status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)


async def _locked(session: AsyncSession, key_id: str) -> ApiKey:
    key = await session.get(ApiKey, key_id, with_for_update=True, populate_existing=True)
    if key is None:
        raise NotFoundError("api_key", key_id)
    if key.status == KeyStatus.REVOKED:
        raise KeyRevokedError(key_id)
    return key


async def _issue(
    session: AsyncSession, key: ApiKey, *, action: str, extra: dict[str, Any], actor: str, now: datetime
) -> IssuedKey:
    text = generate_api_key(Mode(key.mode))
    key.id = new_id("key", now)
    key.key_hash = hash_api_key(text)
    key.hint = api_key_hint(text)
    key.origin = KeyOrigin.ISSUED.value
    key.status = KeyStatus.ACTIVE.value
    key.gateway_version = 1
    key.created_at = now
    session.add(key)
    await session.flush()
    await enqueue(session, topic=Topic.KEY_CHANGED, entity_id=key.id, now=now)
    after = {"account_id": key.account_id, "mode": key.mode, **key_facts(key), **extra}
    await _record(session, key, action=action, before=None, after=after, actor=actor, now=now)
    return IssuedKey(key=key, text=text)


async def _change(
    session: AsyncSession, key: ApiKey, changes: dict[str, Any], *, action: str, actor: str, now: datetime
) -> ApiKey:
    changes = {name: value for name, value in changes.items() if getattr(key, name) != value}
    if not changes:
        return key
    before = key_facts(key)
    for name, value in changes.items():
        setattr(key, name, value)
    key.gateway_version += 1
    await enqueue(session, topic=Topic.KEY_CHANGED, entity_id=key.id, now=now)
    await _record(session, key, action=action, before=before, after=key_facts(key), actor=actor, now=now)
    return key


async def _record(
    session: AsyncSession,
    key: ApiKey,
    *,
    action: str,
    before: dict[str, Any] | None,
    after: dict[str, Any],
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="api_key",
        entity_id=key.id,
        before=before,
        after=after,
        now=now,
    )


def key_facts(key: ApiKey) -> dict[str, Any]:
    """Return what the audit log keeps of a key."""
    return {
        "name": key.name,
        "status": key.status,
        "scopes": list(key.scopes),
        "windows": list(key.windows),
        "quota_units": key.quota_units,
        "ip_ranges": list(key.ip_ranges),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }
