"""Key and account records: what the gateway knows of a caller, as the control plane projects it into Redis.

JSON objects. Writers write every field; readers ignore fields they do not know (fields are added, never
repurposed; one that is missing in an older record has its default). A tombstone is a record whose status is
`revoked` (key) or `deleted` (account), never a missing one.
"""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from gateway_contract.modes import Mode

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


class RedisDownPolicy(StrEnum):
    """What a plan's limits do while Redis is away: keep local windows, or refuse."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` calls in any interval of `window_ms`."""

    limit: int
    window_ms: int


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period, half-open: [start_ms, end_ms)."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Quota:
    """`units` a billing period. `hard` refuses at the quota; otherwise the rest is overage, up to `cap_units`."""

    units: int
    hard: bool
    cap_units: int | None = None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` calls at a time. A call that nobody saw end is given up after `lease_ms`."""

    limit: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class PriceStep:
    """Part of a price, in force from unit `above` + 1 on: `base_micro` + `unit_micro` for each `per_units` begun.

    Amounts are whole millionths of a minor unit, rounded up; counting starts behind `above`.
    """

    above: int
    base_micro: int
    unit_micro: int
    per_units: int = 1


@dataclass(frozen=True, slots=True)
class MeterPrice:
    """What units of one dimension cost: of `requests` (quota units) or of one that the upstream reports.

    The last step whose `above` is less than the units counts for all of them; none does for 0 units. Units that
    were counted before this price came into force, `from_units`, are taken off first. The sum is rounded to minor
    units, half up: it is one line of the invoice.
    """

    dimension: str
    steps: tuple[PriceStep, ...]
    from_units: int = 0


@dataclass(frozen=True, slots=True)
class SpendCap:
    """The most that the customer wants to pay for a billing period, `amount_minor` in all.

    Where only requests cost by use, `ceiling_units` says how many units that are, and nothing else is set.
    Otherwise `prices` may add up to `usage_minor`. `reserves`, by Kong route name, are the most units of each
    dimension that one call there can turn out to cost.
    """

    amount_minor: int
    currency: str
    ceiling_units: int | None = None
    usage_minor: int = 0
    prices: tuple[MeterPrice, ...] = ()
    reserves: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The plan that would fit, named in a 429 body. `url` is absolute."""

    plan: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class ProductGrant:
    """What an account may do with one API product: its subscription as the gateway needs it.

    `periods` holds the current and the next billing period, around the moment at which one ends also the one
    before: a call belongs to the period that holds its Redis time. `entitlements` are names that premium routes
    ask for.
    `route_units` gives the quota units of one call by Kong route name (1 where a route is not named).
    `payment_due`: the plan's policy is to refuse calls until a bill is paid.
    """

    subscription_id: str
    plan: str
    plan_name: str
    plan_version: int
    windows: tuple[Window, ...]
    quota: Quota | None
    periods: tuple[Period, ...]
    entitlements: tuple[str, ...] = ()
    route_units: dict[str, int] = field(default_factory=dict)
    redis_down: RedisDownPolicy = RedisDownPolicy.OPEN
    upgrade: Upgrade | None = None
    concurrency: Concurrency | None = None
    spend_cap: SpendCap | None = None
    payment_due: bool = False


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


# What accounts on one plan have in common is kept once: a gateway remembers tens of thousands of records.
_shared_window = lru_cache(maxsize=4096)(Window)
_shared_quota = lru_cache(maxsize=4096)(Quota)
_shared_upgrade = lru_cache(maxsize=4096)(Upgrade)
_shared_period = lru_cache(maxsize=4096)(Period)

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
            windows=_windows(value["windows"]),
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
            products={code: _grant(grant) for code, grant in value["products"].items()},
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


def _windows(values: list[dict[str, int]]) -> tuple[Window, ...]:
    return tuple(_shared_window(int(v["limit"]), int(v["window_ms"])) for v in values)


def _grant(value: dict[str, Any]) -> ProductGrant:
    quota, upgrade = value["quota"], value["upgrade"]
    return ProductGrant(
        subscription_id=value["subscription_id"],
        plan=value["plan"],
        plan_name=value["plan_name"],
        plan_version=int(value["plan_version"]),
        windows=_windows(value["windows"]),
        quota=None if quota is None else _quota(quota),
        periods=tuple(_shared_period(int(p["start_ms"]), int(p["end_ms"])) for p in value["periods"]),
        entitlements=tuple(value["entitlements"]),
        route_units={name: int(units) for name, units in value["route_units"].items()},
        redis_down=RedisDownPolicy(value["redis_down"]),
        upgrade=None if upgrade is None else _shared_upgrade(upgrade["plan"], upgrade["name"], upgrade["url"]),
        concurrency=_concurrency(value.get("concurrency")),
        spend_cap=_spend_cap(value.get("spend_cap")),
        payment_due=bool(value.get("payment_due", False)),
    )


def _quota(value: dict[str, Any]) -> Quota:
    cap = value.get("cap_units")
    return _shared_quota(int(value["units"]), bool(value["hard"]), None if cap is None else int(cap))


def _concurrency(value: dict[str, Any] | None) -> Concurrency | None:
    return None if value is None else Concurrency(limit=int(value["limit"]), lease_ms=int(value["lease_ms"]))


def _spend_cap(value: dict[str, Any] | None) -> SpendCap | None:
    if value is None:
        return None
    ceiling = value["ceiling_units"]
    return SpendCap(
        amount_minor=int(value["amount_minor"]),
        currency=value["currency"],
        ceiling_units=None if ceiling is None else int(ceiling),
        usage_minor=int(value["usage_minor"]),
        prices=tuple(_meter_price(price) for price in value["prices"]),
        reserves={
            route: {name: int(units) for name, units in most.items()} for route, most in value["reserves"].items()
        },
    )


def _meter_price(value: dict[str, Any]) -> MeterPrice:
    steps = tuple(PriceStep(**{name: int(amount) for name, amount in step.items()}) for step in value["steps"])
    return MeterPrice(dimension=value["dimension"], steps=steps, from_units=int(value["from_units"]))
