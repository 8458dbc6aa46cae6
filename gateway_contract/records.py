"""Key and account records: what the gateway knows of a caller, as the control plane projects it into Redis.

JSON objects. Writers write every field; readers ignore fields they do not know (fields are added, never
repurposed; one that is missing in an older record has its default). A tombstone is a record whose status is
`revoked` (key) or `deleted` (account), never a missing one.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway_contract.grants import (
    Allowance,
    Concurrency,
    MeterPrice,
    NextGrant,
    Period,
    PriceStep,
    ProductGrant,
    Quota,
    RedisDownPolicy,
    SpendCap,
    Upgrade,
    Window,
    read_grant,
    read_windows,
)
from gateway_contract.modes import Mode

__all__ = [
    "FULL_SCOPE",
    "READ_ONLY_METHODS",
    "READ_ONLY_SCOPE",
    "AccountRecord",
    "AccountStatus",
    "Allowance",
    "Concurrency",
    "KeyRecord",
    "KeyStatus",
    "MeterPrice",
    "NextGrant",
    "Period",
    "PriceStep",
    "ProductGrant",
    "Quota",
    "RecordError",
    "RedisDownPolicy",
    "SpendCap",
    "Upgrade",
    "Window",
    "decode_account_record",
    "decode_key_record",
    "encode_record",
]

FULL_SCOPE = "full"
READ_ONLY_SCOPE = "read_only"
READ_ONLY_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RecordError(ValueError):
    """A record in Redis cannot be read; the message names the field."""


class KeyStatus(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


class AccountStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key. `scopes` are `full`, `read_only` or custom names; `version` grows with every change."""

    id: str
    account_id: str
    mode: Mode
    status: KeyStatus
    version: int
    scopes: tuple[str, ...] = (FULL_SCOPE,)
    windows: tuple[Window, ...] = ()
    quota_units: int | None = None
    ip_ranges: tuple[str, ...] = ()
    expires_at_ms: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """One account with its grants by API product code."""

    id: str
    name: str
    status: AccountStatus
    version: int
    products: dict[str, ProductGrant]


# A full projection writes a million records, and `dataclasses.asdict` would take four times as long.
_ENCODE = json.JSONEncoder(
    separators=(",", ":"),
    sort_keys=True,
    default=lambda value: {name: getattr(value, name) for name in value.__slots__},
).encode


def encode_record(record: KeyRecord | AccountRecord) -> str:
    """Return the record as compact JSON with sorted keys (one byte form for one value)."""
    return _ENCODE(record)


def decode_key_record(text: str | bytes) -> KeyRecord:
    """Read a key record.

    Raises:
        RecordError: not JSON, or a field is missing or of the wrong kind.
    """
    value = _load(text)
    try:
        return KeyRecord(
            id=value["id"],
            account_id=value["account_id"],
            mode=Mode(value["mode"]),
            status=KeyStatus(value["status"]),
            version=int(value["version"]),
            scopes=tuple(value["scopes"]),
            windows=read_windows(value["windows"]),
            quota_units=value["quota_units"],
            ip_ranges=tuple(value["ip_ranges"]),
            expires_at_ms=value["expires_at_ms"],
            name=value["name"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"key record: {error!r}") from error


def decode_account_record(text: str | bytes) -> AccountRecord:
    """Read an account record.

    Raises:
        RecordError: not JSON, or a field is missing or of the wrong kind.
    """
    value = _load(text)
    try:
        return AccountRecord(
            id=value["id"],
            name=value["name"],
            status=AccountStatus(value["status"]),
            version=int(value["version"]),
            products={code: read_grant(grant) for code, grant in value["products"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"account record: {error!r}") from error


def _load(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecordError("record is not JSON") from error
    if not isinstance(value, dict):
        raise RecordError("record is not a JSON object")
    return value
