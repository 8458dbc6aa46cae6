"""Everything that is known of some hours, from all sides: counters, event store, rollup."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.redis import RedisClient
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.trial_hours import is_before_billing
from control_plane.usage.completeness.counting import count_hours, subscriptions_of
from control_plane.usage.completeness.model import CountedHour, Numbers
from control_plane.usage.completeness.readings import (
    CountedSubscription,
    HourReading,
    PeriodCounter,
    period_counter_of,
    read_hours,
)
from control_plane.usage.completeness.tables import CountedUsage
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey
from control_plane.usage.store import EventStore
from control_plane.usage.store.call_numbers import NumberBucket, call_numbers
from control_plane.usage.tables import UsageHourly
from gateway_contract.counters import HOUR_MS, hour_number
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

HOUR = timedelta(hours=1)


class CounterHour(NamedTuple):
    """One subscription's hour in one mode: what one counter counts."""

    hour: HourKey
    subscription_id: str
    mode: str


@dataclass(frozen=True, slots=True)
class RolledUp:
    """Served calls, and billed units that count in the counter's billing period, of one hour in `usage_hourly`."""

    served_calls: int
    billable_units: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of hours, by counter. `moments` cut an account's hours where a subscription begins or ends."""

    subscriptions: Mapping[str, CountedSubscription]
    moments: Mapping[str, Sequence[int]]
    counted: Mapping[CounterHour, CountedHour]
    readings: Mapping[CounterHour, HourReading | None]
    rolled_up: Mapping[CounterHour, RolledUp]
    buckets: Mapping[CounterHour, Sequence[NumberBucket]] = field(default_factory=dict)

    def counters(self, hour: HourKey) -> list[CounterHour]:
        """Return the counters of the hour that anything is known of."""
        known = {*self.counted, *self.rolled_up, *self.buckets}
        return sorted(counter for counter in known if counter.hour == hour)

    def is_shared(self, counter: CounterHour) -> bool:
        """Say whether another subscription of the same product ran in this hour."""
        start = from_ms(counter.hour.hour_ms)
        product = self.subscriptions[counter.subscription_id].product
        return any(
            other.product == product and other.id != counter.subscription_id and _ran_in(other, start)
            for other in self.subscriptions.values()
            if other.account_id == counter.hour.account_id
        )


async def gather_evidence(
    session: AsyncSession, store: EventStore, client: RedisClient, hours: Sequence[HourKey], *, now: datetime
) -> Evidence:
    """Return what is known of these hours. What the counters say now is kept first, should it be more."""
    starts = [from_ms(key.hour_ms) for key in hours]
    found = await subscriptions_of(
        session, {key.account_id for key in hours}, start=min(starts) - HOUR, end=max(starts) + HOUR
    )
    subscriptions = {subscription.id: subscription for subscription in found}
    readings = await _read_hours(client, found, hours)
    counted = await _counted(session, hours)
    if await _count_more(session, client, subscriptions, readings, counted, now=now):
        counted = await _counted(session, hours)
    moments = _moments(found, hours)
    buckets = await asyncio.to_thread(call_numbers, store, hours, boundaries=moments)
    return Evidence(
        subscriptions=subscriptions,
        moments=moments,
        counted=counted,
        readings=readings,
        rolled_up=await _rolled_up(session, hours),
        buckets=_by_counter(buckets, found, moments),
    )


async def _read_hours(
    client: RedisClient, subscriptions: Iterable[CountedSubscription], hours: Sequence[HourKey]
) -> dict[CounterHour, HourReading | None]:
    by_account: dict[str, list[CountedSubscription]] = defaultdict(list)
    for subscription in subscriptions:
        by_account[subscription.account_id].append(subscription)
    asked: dict[CounterHour, PeriodCounter] = {}
    for key in hours:
        start = from_ms(key.hour_ms)
        for subscription in by_account[key.account_id]:
            if _ran_in(subscription, start):
                for mode in Mode:
                    counter = period_counter_of(subscription, mode, start, until=hour_number(key.hour_ms))
                    asked[CounterHour(key, subscription.id, mode.value)] = counter
    answers = await read_hours(client, list(asked.values()))
    return dict(zip(asked, answers, strict=True))


async def _count_more(
    session: AsyncSession,
    client: RedisClient,
    subscriptions: Mapping[str, CountedSubscription],
    readings: Mapping[CounterHour, HourReading | None],
    counted: Mapping[CounterHour, CountedHour],
    *,
    now: datetime,
) -> bool:
    """Keep what counters say now of hours where that is more than was kept; say whether there was anything."""
    missed = [
        counter
        for counter, reading in readings.items()
        if reading is not None and reading.issued > (counted[counter].admitted if counter in counted else 0)
    ]
    for subscription_id, hour in sorted({(counter.subscription_id, counter.hour) for counter in missed}):
        start = from_ms(hour.hour_ms)
        await count_hours(
            session, client, [subscriptions[subscription_id]], start=start, end=start + HOUR, now=now
        )
    return bool(missed)


async def _counted(session: AsyncSession, hours: Sequence[HourKey]) -> dict[CounterHour, CountedHour]:
    statement = select(
        CountedUsage.account_id,
        CountedUsage.hour,
        CountedUsage.subscription_id,
        CountedUsage.mode,
        CountedUsage.admitted,
        CountedUsage.not_counted,
        CountedUsage.numbers,
    ).where(is_one_of(CountedUsage, hours), CountedUsage.counted_at.is_not(None))
    return {
        CounterHour(HourKey(account_id, to_ms(hour)), subscription_id, mode): CountedHour(
            admitted, not_counted, tuple(Numbers(**part) for part in numbers)
        )
        for account_id, hour, subscription_id, mode, admitted, not_counted, numbers in await session.execute(
            statement
        )
    }


async def _rolled_up(session: AsyncSession, hours: Sequence[HourKey]) -> dict[CounterHour, RolledUp]:
    # an amendment has no calls that anybody made
    made = (UsageHourly.outcome == Outcome.SERVED.value) & (UsageHourly.amendment_id == "")
    served = case((made, UsageHourly.calls), else_=0)
    counted = case((is_before_billing(UsageHourly.hour), 0), else_=UsageHourly.billable_units)
    statement = (
        select(
            UsageHourly.account_id,
            UsageHourly.hour,
            SubscriptionPhase.subscription_id,
            UsageHourly.mode,
            cast(func.sum(served), BigInteger),
            cast(func.sum(counted), BigInteger),
        )
        .join(SubscriptionPhase, SubscriptionPhase.id == UsageHourly.phase_id)
        .join(Subscription, Subscription.id == SubscriptionPhase.subscription_id)
        .where(is_one_of(UsageHourly, hours))
        .group_by(UsageHourly.account_id, UsageHourly.hour, SubscriptionPhase.subscription_id, UsageHourly.mode)
    )
    return {
        CounterHour(HourKey(account_id, to_ms(hour)), subscription_id, mode): RolledUp(calls, units)
        for account_id, hour, subscription_id, mode, calls, units in await session.execute(statement)
        if mode
    }


def _moments(subscriptions: Iterable[CountedSubscription], hours: Iterable[HourKey]) -> dict[str, list[int]]:
    """Return, by account, the moments (ms) inside one of the hours at which a subscription begins or ends."""
    by_account: dict[str, set[int]] = defaultdict(set)
    for subscription in subscriptions:
        for moment in (subscription.started_at, subscription.ends_at):
            if moment is not None:
                by_account[subscription.account_id].add(_first_ms(moment))
    found: dict[str, set[int]] = defaultdict(set)
    for account_id, hour_ms in hours:
        inside = {at for at in by_account.get(account_id, ()) if hour_ms < at < hour_ms + HOUR_MS}
        if inside:
            found[account_id] |= inside
    return {account_id: sorted(moments) for account_id, moments in found.items()}


def _by_counter(
    buckets: Iterable[NumberBucket],
    subscriptions: Sequence[CountedSubscription],
    moments: Mapping[str, Sequence[int]],
) -> dict[CounterHour, list[NumberBucket]]:
    """Return buckets by the counter they belong to; calls under no subscription belong to none."""
    found: dict[CounterHour, list[NumberBucket]] = defaultdict(list)
    for bucket in buckets:
        begins_ms = bucket.hour.hour_ms
        if bucket.part:
            begins_ms = max(begins_ms, moments[bucket.hour.account_id][bucket.part - 1])
        for subscription in subscriptions:
            if (
                subscription.account_id == bucket.hour.account_id
                and subscription.product == bucket.product
                and _first_ms(subscription.started_at) <= begins_ms
                and (subscription.ends_at is None or begins_ms < _first_ms(subscription.ends_at))
            ):
                found[CounterHour(bucket.hour, subscription.id, bucket.mode)].append(bucket)
    return found


def _ran_in(subscription: CountedSubscription, hour: datetime) -> bool:
    return subscription.started_at < hour + HOUR and (subscription.ends_at is None or subscription.ends_at > hour)


def _first_ms(moment: datetime) -> int:
    # what begins within a millisecond begins for the gateway with the next
    floored = to_ms(moment)
    return floored if from_ms(floored) == moment else floored + 1
