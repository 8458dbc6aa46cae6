"""The gateway's counters, corrected from usage: settled hours, and everything again after Redis lost it.

Billing periods begin on a full hour, so an hour of usage belongs to one period of a subscription.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync.allowances import parts_within
from control_plane.gateway_sync.dimension_reads import DimensionHour
from control_plane.gateway_sync.redis_scripts import Script
from control_plane.gateway_sync.usage_reads import HOUR, CounterSubscription, HourUsage, KeyShare
from gateway_contract.counters import HOUR_MS, hour_number
from gateway_contract.modes import Mode
from gateway_contract.redis_names import key_counters, period_counters

# as long as the limit script keeps them
KEEP_AFTER_PERIOD = timedelta(days=40)
# longer than clocks may differ: by then no call is judged by the period that ended
JUST_ENDED = timedelta(minutes=5)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SettledHour:
    """One account's sealed hour at one revision: what it was billed, in every counter that it belongs to.

    `dimensions`: units billed by subscription and dimension, where a spend cap counts them. Units of plan versions
    that began within the billing period are settled as further dimensions.
    """

    account_id: str
    hour: datetime
    revision: int
    subscriptions: tuple[CounterSubscription, ...]
    shares: tuple[KeyShare, ...]
    usage: tuple[HourUsage, ...]
    dimensions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SettledCounter:
    """What an hour was billed in one counter, and the moment (ms) at which the counter may be forgotten."""

    units: int
    forget_at_ms: int
    dimensions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HourCount:
    """What is known of one hour; `revision` 0 while the hour is open."""

    hour: int
    calls: int
    units: int
    revision: int
    dimensions: Mapping[str, int] = field(default_factory=dict)


def settled_counters(settled: SettledHour) -> dict[str, SettledCounter]:
    """Return what the hour was billed by counter name. Pure.

    Every counter of a subscription that ran in the hour is named, also with 0 units: calls that were admitted
    and never logged are given back.
    """
    counters: dict[str, SettledCounter] = {}
    for subscription in settled.subscriptions:
        period = _period_of(subscription, settled.hour)
        parts = parts_within(subscription.ran, period, until=settled.hour + HOUR)
        usage = [line for line in settled.usage if line.subscription_id == subscription.id]
        for mode in Mode:
            name = period_counters(settled.account_id, subscription.id, period.start_ms, mode)
            of_mode = [line for line in usage if line.mode == mode]
            dimensions = settled.dimensions.get(subscription.id, {}) if mode is Mode.LIVE else {}
            counters[name] = SettledCounter(
                units=sum(line.billed_units for line in of_mode),
                forget_at_ms=_forget_at_ms(period),
                dimensions={**dimensions, **_units_of_parts(of_mode, parts)},
            )
        for share in settled.shares:
            name = key_counters(settled.account_id, share.key_id, period.start_ms)
            # a key's counters are shared by all subscriptions whose periods begin together
            before = counters.get(name, SettledCounter(0, 0))
            of_key = [line for line in usage if line.key_id == share.key_id]
            # an amendment may take more from a key than it used: the subscription has it, the key has nothing
            billed = max(0, sum(line.billed_units for line in of_key))
            counters[name] = SettledCounter(
                units=before.units + billed,
                forget_at_ms=_forget_at_ms(period),
                dimensions={**before.dimensions, **_units_of_parts(of_key, parts)},
            )
    return counters


async def settle_hour(client: RedisClient, settled: SettledHour) -> int:
    """Overwrite the hour in the account's counters, at a newer revision only; returns how many were written.

    One script, so all of an account's counters move together. Idempotent.
    """
    counters = settled_counters(settled)
    if not counters:
        return 0
    values = [str(hour_number(to_ms(settled.hour))), str(settled.revision)]
    for counter in counters.values():
        values += [str(counter.units), str(counter.forget_at_ms), _words(counter.dimensions)]
    return int(await Script(client, "settle_hour").run(keys=list(counters), args=values))


def restored_counters(
    *,
    subscriptions: Iterable[CounterSubscription],
    shares: Iterable[KeyShare],
    usage: Iterable[HourUsage],
    capped: Mapping[str, Collection[str]],
    dimensions: Iterable[DimensionHour],
    now: datetime,
) -> Iterator[tuple[str, int, list[HourCount]]]:
    """Yield counter name, moment (ms) it may be forgotten, and its hours in the current period. Pure.

    A settled hour holds billed units, an open one everything admitted. A period that has just ended is there too:
    calls that the gateway judged before may still count in it. `capped` are the dimensions that count for a
    subscription's spend cap.
    """
    usage_of, shares_of, dimensions_of = _grouped(usage, "subscription_id"), _grouped(shares, "account_id"), {}
    for line in dimensions:
        dimensions_of[line.subscription_id, line.hour, line.dimension] = line
    keyed: dict[str, list[HourUsage]] = defaultdict(list)
    ends: dict[str, int] = {}
    parts_of: dict[str, dict[str, str]] = defaultdict(dict)
    for subscription in subscriptions:
        counted = capped.get(subscription.id, ())
        for period in _recent_periods(subscription, now) if subscription.id in usage_of else ():
            lines = [line for line in usage_of[subscription.id] if line.hour in period]
            parts = parts_within(subscription.ran, period, until=now + HOUR)
            for mode in Mode:
                name = period_counters(subscription.account_id, subscription.id, period.start_ms, mode)
                hours = _hours([line for line in lines if line.mode == mode], parts)
                if counted and mode is Mode.LIVE:
                    hours = [_with_dimensions(hour, counted, subscription.id, dimensions_of) for hour in hours]
                yield name, _forget_at_ms(period), hours
            for share in shares_of[subscription.account_id]:
                name = key_counters(subscription.account_id, share.key_id, period.start_ms)
                keyed[name] += [line for line in lines if line.key_id == share.key_id]
                ends[name] = max(ends.get(name, 0), _forget_at_ms(period))
                parts_of[name] |= parts
    for name, lines in keyed.items():
        yield name, ends[name], _hours(lines, parts_of[name])


async def restore_counters(client: RedisClient, counters: Collection[tuple[str, int, Sequence[HourCount]]]) -> int:
    """Bring counters back to at least what is known; returns how many had something to restore. Idempotent."""
    calls = []
    for name, forget_at_ms, hours in counters:
        if not hours:
            continue
        values = [str(forget_at_ms)]
        for known in hours:
            values += [str(known.hour), str(known.calls), str(known.units), str(known.revision)]
            values.append(_words(known.dimensions))
        calls.append(([name], values))
    return len(await Script(client, "restore_counters").run_each(calls))


def _recent_periods(subscription: CounterSubscription, now: datetime) -> tuple[BillingPeriod, ...]:
    before = _period_of(subscription, now - JUST_ENDED)
    current = _period_of(subscription, now)
    return (current,) if before == current else (before, current)


def _period_of(subscription: CounterSubscription, moment: datetime) -> BillingPeriod:
    return period_containing(moment, subscription.anchor_at, subscription.interval, subscription.time_zone)


def _with_dimensions(
    known: HourCount,
    counted: Collection[str],
    subscription_id: str,
    dimensions: Mapping[tuple[str, datetime, str], DimensionHour],
) -> HourCount:
    used: dict[str, int] = {}
    for dimension in counted:
        line = dimensions.get((subscription_id, from_ms(known.hour * HOUR_MS), dimension))
        used[dimension] = 0 if line is None else line.billed if known.revision else line.admitted
    return replace(known, dimensions={**known.dimensions, **used})


def _units_of_parts(lines: Iterable[HourUsage], parts: Mapping[str, str]) -> dict[str, int]:
    """Return what was billed in each part; parts in which nothing was have 0."""
    units = dict.fromkeys(parts.values(), 0)
    for line in lines:
        if line.plan_version_id in parts:
            units[parts[line.plan_version_id]] += line.billed_units
    return {part: max(0, billed) for part, billed in units.items()}


def _words(dimensions: Mapping[str, int]) -> str:
    """Return `tokens=120 images=3`, as the scripts read it."""
    return " ".join(f"{name}={units}" for name, units in sorted(dimensions.items()))


def _grouped(items: Iterable[Item], attribute: str) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[getattr(item, attribute)].append(item)
    return groups


def _forget_at_ms(period: BillingPeriod) -> int:
    return to_ms(period.end + KEEP_AFTER_PERIOD)


def _hours(lines: Iterable[HourUsage], parts: Mapping[str, str]) -> list[HourCount]:
    totals: dict[int, HourCount] = {}
    for line in lines:
        hour = hour_number(to_ms(line.hour))
        before = totals.get(hour)
        if before is None:
            before = HourCount(hour, 0, 0, line.settled_revision, dict.fromkeys(parts.values(), 0))
        units = line.billed_units if line.settled_revision else line.admitted_units
        of_parts = dict(before.dimensions)
        if line.plan_version_id in parts:
            of_parts[parts[line.plan_version_id]] += units
        totals[hour] = HourCount(
            hour, before.calls + line.admitted_calls, before.units + units, line.settled_revision, of_parts
        )
    return [
        replace(
            found,
            units=max(0, found.units),
            dimensions={part: max(0, units) for part, units in found.dimensions.items()},
        )
        for _, found in sorted(totals.items())
    ]
