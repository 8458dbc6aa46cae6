"""Reads the gateway's counters of billing periods."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.foundation.clock import to_ms
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.foundation.redis import RedisClient
from control_plane.usage.completeness.model import CounterReading
from gateway_contract import counters
from gateway_contract.modes import Mode
from gateway_contract.redis_names import period_counters


@dataclass(frozen=True, slots=True)
class CountedSubscription:
    """A subscription that has counters; its periods follow from anchor, interval and time zone."""

    id: str
    account_id: str
    product: str
    anchor_at: datetime
    interval: str
    time_zone: str
    started_at: datetime
    ends_at: datetime | None

    def period_at(self, moment: datetime) -> BillingPeriod:
        return period_containing(moment, self.anchor_at, self.interval, self.time_zone)

    def period_start(self, moment: datetime) -> datetime:
        return self.period_at(moment).start


@dataclass(frozen=True, slots=True)
class PeriodCounter:
    """One billing period's counter in one mode, and the hours (numbers) that are asked of it."""

    subscription: CountedSubscription
    mode: Mode
    period_start: datetime
    hours: range

    @property
    def name(self) -> str:
        found = self.subscription
        return period_counters(found.account_id, found.id, to_ms(self.period_start), self.mode)


@dataclass(frozen=True, slots=True)
class HourReading:
    """What a counter holds of one hour. `issued`: calls that got a number; `revision` None until it is settled."""

    issued: int
    units: int
    revision: int | None


def period_counter_of(
    subscription: CountedSubscription, mode: Mode, hour: datetime, *, until: int
) -> PeriodCounter:
    """Return the counter that holds an hour; its hours go from that one up to `until`, or the period's end."""
    period = subscription.period_at(hour)
    first = counters.hour_number(to_ms(hour))
    last = min(until, counters.hour_number(period.end_ms) - 1)
    return PeriodCounter(subscription, mode, period.start, range(first, last + 1))


async def read_counters(client: RedisClient, asked: Sequence[PeriodCounter]) -> list[CounterReading | None]:
    """Return the counters in order, each read at one moment; None where Redis has none."""
    if not asked:
        return []
    async with client.pipeline(transaction=False) as pipeline:
        for counter in asked:
            names = [f(hour) for f in (counters.hour_calls, counters.hour_not_counted) for hour in counter.hours]
            pipeline.hmget(counter.name, [counters.CALLS, counters.SKIPPED, *names])
        answers = await pipeline.execute()
    return [_reading(counter.hours, answer) for counter, answer in zip(asked, answers, strict=True)]


async def read_hours(client: RedisClient, asked: Sequence[PeriodCounter]) -> list[HourReading | None]:
    """Return what each counter holds of the first of its hours; None where Redis has nothing of it."""
    if not asked:
        return []
    fields = (counters.hour_calls, counters.hour_not_counted, counters.hour_units, counters.hour_revision)
    async with client.pipeline(transaction=False) as pipeline:
        for counter in asked:
            pipeline.hmget(counter.name, [field(counter.hours[0]) for field in fields])
        answers = await pipeline.execute()
    return [
        None
        if all(value is None for value in values)
        else HourReading(
            issued=max(0, int(values[0] or 0) - int(values[1] or 0)),
            units=int(values[2] or 0),
            revision=None if values[3] is None else int(values[3]),
        )
        for values in answers
    ]


def _reading(hours: range, answer: Sequence[str | None]) -> CounterReading | None:
    last_number, skipped, *values = answer
    if last_number is None:
        return None
    calls, not_counted = values[: len(hours)], values[len(hours) :]
    return CounterReading(
        last_number=int(last_number),
        skipped=counters.parse_skipped(skipped),
        calls={hour: int(value) for hour, value in zip(hours, calls, strict=True) if value is not None},
        not_counted={
            hour: int(value) for hour, value in zip(hours, not_counted, strict=True) if value is not None
        },
    )
