"""Snapshots of keys for records."""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, Text, select
from sqlalchemy import cast as cast_to
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import to_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.windows import windows_from_json
from control_plane.gateway_sync.records import KeySnapshot
from control_plane.gateway_sync.snapshots import SnapshotPage, usable
from control_plane.keys.tables import ApiKey
from gateway_contract.modes import Mode
from gateway_contract.records import KeyRecord, KeyStatus

# the table, not the mapped class: a sweep reads a million rows, and objects are of no use to it
_KEYS = ApiKey.__table__.c
KEY_COLUMNS = (
    _KEYS.id,
    _KEYS.account_id,
    _KEYS.key_hash,
    _KEYS.mode,
    _KEYS.status,
    _KEYS.gateway_version,
    _KEYS.scopes,
    # as text: hardly any key has windows of its own, and reading JSON is dear a million times over
    cast_to(_KEYS.windows, Text),
    _KEYS.quota_units,
    _KEYS.ip_ranges,
    _KEYS.expires_at,
    _KEYS.name,
)


async def keys_by_id(session: AsyncSession, key_ids: Collection[str]) -> list[KeySnapshot]:
    """Return the keys in no particular order; ids that do not exist are left out."""
    if not key_ids:
        return []
    rows = await session.execute(select(*KEY_COLUMNS).where(is_any_of(ApiKey.id, key_ids)))
    return list(usable("key", rows, _key))


async def keys_after(session: AsyncSession, last_id: str, *, limit: int) -> SnapshotPage[KeySnapshot]:
    """Return the next page of all keys in the order of their ids; start with ''."""
    statement = select(*KEY_COLUMNS).where(ApiKey.id > last_id).order_by(ApiKey.id).limit(limit)
    rows = (await session.execute(statement)).all()
    return SnapshotPage(list(usable("key", rows, _key)), len(rows), rows[-1][0] if rows else None)


def _key(row: Row[Any]) -> KeySnapshot:
    # by position: a full sweep makes a million of these
    (key_id, account_id, key_hash, mode, status, version, scopes, windows, quota, ranges, expires_at, name) = (
        tuple(row)
    )
    record = KeyRecord(
        id=key_id,
        account_id=account_id,
        mode=Mode(mode),
        status=KeyStatus(status),
        version=version,
        scopes=tuple(scopes),
        windows=() if windows == "[]" else windows_from_json(json.loads(windows)),
        quota_units=quota,
        ip_ranges=tuple(ranges),
        expires_at_ms=None if expires_at is None else to_ms(expires_at),
        name=name,
    )
    return KeySnapshot(key_hash, record)
