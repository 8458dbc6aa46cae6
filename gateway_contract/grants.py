"""What an account may do with one API product: the part of its record that a subscription makes."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any


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
class Allowance:
    """What counts against the quota in a billing period within which the plan changed. Spend caps count all units.

    It holds for the period that starts at `period_start_ms`; in any other all units count. The counters have the
    units of each part beside all units (see `gateway_contract.counters`). Calls are counted in `part`, where one
    is named. What counts is that part, else all units but those of `others`; with `carried` all units. `quota`:
    that of this period, where it is another than the grant's.
    """

    period_start_ms: int
    part: str = ""
    others: tuple[str, ...] = ()
    carried: bool = False
    quota: Quota | None = None


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
    dimension that one call there can turn out to cost. `prepaid`: prepaid credits set it, not the customer.
    """

    amount_minor: int
    currency: str
    ceiling_units: int | None = None
    usage_minor: int = 0
    prices: tuple[MeterPrice, ...] = ()
    reserves: dict[str, dict[str, int]] = field(default_factory=dict)
    prepaid: bool = False


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
    `payment_due`: the plan's policy is to refuse calls until a bill is paid. `paused`: no call is allowed until
    the subscription is resumed. `next` takes this one's place by itself, at its moment.
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
    allowance: Allowance | None = None
    paused: bool = False
    next: "NextGrant | None" = None


@dataclass(frozen=True, slots=True)
class NextGrant:
    """What a subscription is known to become at a moment of Redis time; None: it is over then."""

    starts_at_ms: int
    grant: ProductGrant | None


# What accounts on one plan have in common is kept once: a gateway remembers tens of thousands of records.
_shared_window = lru_cache(maxsize=4096)(Window)
_shared_quota = lru_cache(maxsize=4096)(Quota)
_shared_upgrade = lru_cache(maxsize=4096)(Upgrade)
_shared_period = lru_cache(maxsize=4096)(Period)


def read_windows(values: list[dict[str, int]]) -> tuple[Window, ...]:
    return tuple(_shared_window(int(v["limit"]), int(v["window_ms"])) for v in values)


def read_grant(value: dict[str, Any]) -> ProductGrant:
    quota, upgrade = value["quota"], value["upgrade"]
    return ProductGrant(
        subscription_id=value["subscription_id"],
        plan=value["plan"],
        plan_name=value["plan_name"],
        plan_version=int(value["plan_version"]),
        windows=read_windows(value["windows"]),
        quota=None if quota is None else _quota(quota),
        periods=tuple(_shared_period(int(p["start_ms"]), int(p["end_ms"])) for p in value["periods"]),
        entitlements=tuple(value["entitlements"]),
        route_units={name: int(units) for name, units in value["route_units"].items()},
        redis_down=RedisDownPolicy(value["redis_down"]),
        upgrade=None if upgrade is None else _shared_upgrade(upgrade["plan"], upgrade["name"], upgrade["url"]),
        concurrency=_concurrency(value.get("concurrency")),
        spend_cap=_spend_cap(value.get("spend_cap")),
        payment_due=bool(value.get("payment_due", False)),
        allowance=_allowance(value.get("allowance")),
        paused=bool(value.get("paused", False)),
        next=_next(value.get("next")),
    )


def _allowance(value: dict[str, Any] | None) -> Allowance | None:
    if value is None:
        return None
    quota = value["quota"]
    return Allowance(
        period_start_ms=int(value["period_start_ms"]),
        part=value["part"],
        others=tuple(value["others"]),
        carried=bool(value["carried"]),
        quota=None if quota is None else _quota(quota),
    )


def _next(value: dict[str, Any] | None) -> NextGrant | None:
    if value is None:
        return None
    grant = value["grant"]
    return NextGrant(int(value["starts_at_ms"]), None if grant is None else read_grant(grant))


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
        prepaid=bool(value.get("prepaid", False)),
    )


def _meter_price(value: dict[str, Any]) -> MeterPrice:
    steps = tuple(PriceStep(**{name: int(amount) for name, amount in step.items()}) for step in value["steps"])
    return MeterPrice(dimension=value["dimension"], steps=steps, from_units=int(value["from_units"]))
