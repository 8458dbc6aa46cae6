"""Keys that another gateway gave out, by their hashes. Nothing here commits, and no key is ever seen here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import add_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue_many
from control_plane.foundation.text import clean_name
from control_plane.keys.model import KeyOrigin, is_key_hash
from control_plane.keys.operations import key_facts
from control_plane.keys.tables import ApiKey
from gateway_contract.modes import Mode
from gateway_contract.records import FULL_SCOPE, KeyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedKey:
    """A key by its SHA-256. `last_characters` None: too short a key to show any of it."""

    key_hash: str
    name: str
    mode: Mode
    last_characters: str | None = None
    expires_at: datetime | None = None


async def owners_of_hashes(session: AsyncSession, hashes: Collection[str]) -> dict[str, str]:
    """Return the account that has the key, revoked or not, for each hash that is known."""
    rows = await session.execute(
        select(ApiKey.key_hash, ApiKey.account_id).where(is_any_of(ApiKey.key_hash, hashes))
    )
    return {row.key_hash: row.account_id for row in rows}


async def import_keys(
    session: AsyncSession, keys: Sequence[tuple[str, ImportedKey]], *, actor: str, now: datetime
) -> None:
    """Keep keys for accounts (account id, key) that exist; their hashes are not known yet. Scope: full.

    Raises:
        ValidationFailedError: a hash is not 64 lower-case hex digits, or a name not usable.
        IntegrityError: a hash is known.
    """
    rows = [_row(account_id, key, now) for account_id, key in keys]
    session.add_all(rows)
    for row in rows:
        add_change(
            session,
            actor=actor,
            action="api_key.imported",
            entity_type="api_key",
            entity_id=row.id,
            before=None,
            after={"account_id": row.account_id, "mode": row.mode, **key_facts(row)},
            now=now,
        )
    await session.flush()
    await enqueue_many(session, topic=Topic.KEY_CHANGED, entity_ids=[row.id for row in rows], now=now)


def _row(account_id: str, key: ImportedKey, now: datetime) -> ApiKey:
    if not is_key_hash(key.key_hash):
        raise ValidationFailedError("key_hash", "must be a SHA-256: 64 lower-case hex digits")
    return ApiKey(
        id=new_id("key", now),
        account_id=account_id,
        name=clean_name(key.name),
        mode=key.mode.value,
        key_hash=key.key_hash,
        hint=None if key.last_characters is None else f"…{key.last_characters}",
        origin=KeyOrigin.IMPORTED.value,
        scopes=[FULL_SCOPE],
        windows=[],
        quota_units=None,
        ip_ranges=[],
        expires_at=key.expires_at,
        status=KeyStatus.ACTIVE.value,
        gateway_version=1,
        created_at=now,
    )
