"""The gateway's counters, corrected from usage: settled hours, and everything again after Redis lost it.

Billing periods begin on a full hour, so an hour of usage belongs to one period of a subscription.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.foundation.clock import to_ms
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync.redis_scripts import Script
from control_plane.gateway_sync.usage_reads import CounterSubscription, HourUsage, KeyShare
from gateway_contract.counters import hour_number
from gateway_contract.modes import Mode
from gateway_contract.redis_names import key_counters, period_counters

# as long as the limit script keeps them
KEEP_AFTER_PERIOD = timedelta(days=40)


@dataclass(frozen=True, slots=True)
class SettledHour:
    """One account's sealed hour at one revision: what it was billed, in every counter that it belongs to."""

    account_id: str
    hour: datetime
    revision: int
    subscriptions: tuple[CounterSubscription, ...]
    shares: tuple[KeyShare, ...]
    usage: tuple[HourUsage, ...]


@dataclass(frozen=True, slots=True)
class HourCount:
    """What is known of one hour; `revision` 0 while the hour is open."""

    hour: int
    calls: int
    units: int
    revision: int


def settled_counters(settled: SettledHour) -> dict[str, tuple[int, int]]:
    """Return, by counter name, billed units of the hour and the moment (ms) the counter may be forgotten. Pure.

    Every counter of a subscription that ran in the hour is named, also with 0 units: calls that were admitted
    and never logged are given back.
    """
    counters: dict[str, tuple[int, int]] = {}
    for subscription in settled.subscriptions:
        period = period_containing(settled.hour, subscription.anchor_at, subscription.interval)
        forget_at_ms = to_ms(period.end + KEEP_AFTER_PERIOD)
        usage = [line for line in settled.usage if line.subscription_id == subscription.id]
        for mode in Mode:
            name = period_counters(settled.account_id, subscription.id, period.start_ms, mode)
            counters[name] = (sum(line.billed_units for line in usage if line.mode == mode), forget_at_ms)
        for share in settled.shares:
            name = key_counters(settled.account_id, share.key_id, period.start_ms)
            # a key's counters are shared by all subscriptions whose periods begin together
            before = counters.get(name, (0, 0))[0]
            billed = sum(line.billed_units for line in usage if line.key_id == share.key_id)
            counters[name] = (before + billed, forget_at_ms)
    return counters


async def settle_hour(client: RedisClient, settled: SettledHour) -> int:
    """Overwrite the hour in the account's counters, at a newer revision only; returns how many were written.

    One script, so all of an account's counters move together. Idempotent.
    """
    counters = settled_counters(settled)
    if not counters:
        return 0
    values = [str(hour_number(to_ms(settled.hour))), str(settled.revision)]
    for units, forget_at_ms in counters.values():
        values += [str(units), str(forget_at_ms)]
    return int(await Script(client, "settle_hour").run(keys=list(counters), args=values))


def restored_counters(
    *,
    subscriptions: Iterable[CounterSubscription],
    shares: Iterable[KeyShare],
    usage: Iterable[HourUsage],
    now: datetime,
) -> Iterator[tuple[str, int, list[HourCount]]]:
    """Yield counter name, moment (ms) it may be forgotten, and its hours in the current period. Pure.

    A settled hour holds billed units, an open one everything admitted.
    """
    by_subscription: dict[str, list[HourUsage]] = defaultdict(list)
    for line in usage:
        by_subscription[line.subscription_id].append(line)
    keyed: dict[str, list[HourUsage]] = defaultdict(list)
    ends: dict[str, int] = {}
    shares_by_account: dict[str, list[KeyShare]] = defaultdict(list)
    for share in shares:
        shares_by_account[share.account_id].append(share)
    for subscription in subscriptions:
        if subscription.id not in by_subscription:
            continue
        period = period_containing(now, subscription.anchor_at, subscription.interval)
        lines = [line for line in by_subscription[subscription.id] if line.hour in period]
        for mode in Mode:
            name = period_counters(subscription.account_id, subscription.id, period.start_ms, mode)
            yield name, _forget_at_ms(period), _hours(line for line in lines if line.mode == mode)
        for share in shares_by_account[subscription.account_id]:
            name = key_counters(subscription.account_id, share.key_id, period.start_ms)
            keyed[name] += [line for line in lines if line.key_id == share.key_id]
            ends[name] = max(ends.get(name, 0), _forget_at_ms(period))
    for name, lines in keyed.items():
        yield name, ends[name], _hours(lines)


async def restore_counters(client: RedisClient, counters: Collection[tuple[str, int, Sequence[HourCount]]]) -> int:
    """Bring counters back to at least what is known; returns how many had something to restore. Idempotent."""
    calls = []
    for name, forget_at_ms, hours in counters:
        if not hours:
            continue
        values = [str(forget_at_ms)]
        for known in hours:
            values += [str(known.hour), str(known.calls), str(known.units), str(known.revision)]
        calls.append(([name], values))
    return len(await Script(client, "restore_counters").run_each(calls))


def _forget_at_ms(period: BillingPeriod) -> int:
    return to_ms(period.end + KEEP_AFTER_PERIOD)


def _hours(lines: Iterable[HourUsage]) -> list[HourCount]:
    totals: dict[int, HourCount] = {}
    for line in lines:
        hour = hour_number(to_ms(line.hour))
        before = totals.get(hour) or HourCount(hour, 0, 0, line.settled_revision)
        units = line.billed_units if line.settled_revision else line.admitted_units
        totals[hour] = HourCount(
            hour, before.calls + line.admitted_calls, before.units + units, line.settled_revision
        )
    return [totals[hour] for hour in sorted(totals)]
