"""Keeps what the gateway's counters say of each hour as soon as it has ended: afterwards Redis may forget it."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.clock import floor_hour, from_ms, to_ms
from control_plane.foundation.redis import RedisClient
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.completeness.model import CountedHour, hours_of_numbers
from control_plane.usage.completeness.readings import (
    CountedSubscription,
    PeriodCounter,
    period_counter_of,
    read_counters,
)
from control_plane.usage.completeness.tables import CompletenessRun, CountedUsage
from gateway_contract.counters import HOUR_MS, hour_number
from gateway_contract.modes import Mode

HOUR = timedelta(hours=1)
PAGE = 500
# clocks of this machine and of Redis may differ: calls of an hour are not counted before that
COUNT_AFTER = timedelta(seconds=30)
# after an absence: counters are there for 40 days after their period
FURTHEST_BACK = timedelta(days=35)
AT_ONCE = timedelta(hours=24)


async def count_ended_hours(
    sessions: async_sessionmaker[AsyncSession], client: RedisClient, *, now: datetime
) -> int:
    """Read the counters of all subscriptions for the hours that have ended since the last time, up to a day's.

    Returns how many hours of counters had calls. Idempotent; what was counted before is only ever raised.
    """
    ended = floor_hour(now - COUNT_AFTER)
    async with sessions() as session:
        run = await session.get(CompletenessRun, 1)
    start = max(run.counted_until, floor_hour(now - FURTHEST_BACK)) if run else ended - AT_ONCE
    end = min(ended, start + AT_ONCE)
    if start >= end:
        return 0
    found, last_id = 0, ""
    while True:
        async with sessions() as session, session.begin():
            page = await _subscriptions_after(session, last_id, start=start, end=end)
            if not page:
                await _note(session, counted_until=end)
                return found
            found += await count_hours(session, client, page, start=start, end=end, now=now)
            last_id = page[-1].id


async def count_hours(
    session: AsyncSession,
    client: RedisClient,
    subscriptions: Sequence[CountedSubscription],
    *,
    start: datetime,
    end: datetime,
    now: datetime,
) -> int:
    """Keep what the counters say of the hours in [start, end) that have calls; returns how many there were."""
    counters = [
        counter
        for subscription in subscriptions
        for mode in Mode
        for counter in _counters(subscription, mode, start=start, end=end, now=now)
    ]
    rows = []
    readings = await read_counters(client, counters)
    last = hour_number(to_ms(end)) - 1
    for counter, reading in zip(counters, readings, strict=True):
        if reading is not None:
            wanted = [hour for hour in counter.hours if hour <= last]
            rows += [_row(counter, hour, found, now) for hour, found in hours_of_numbers(reading, wanted).items()]
    await keep_counted(session, rows)
    return len(rows)


async def keep_counted(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Write what counters say, where it is more than stands there: Redis may have lost its memory meanwhile."""
    if not rows:
        return
    statement = insert(CountedUsage)
    new = {name: statement.excluded[name] for name in ("admitted", "not_counted", "numbers", "counted_at")}
    # row by row: after an absence there are more of them than one statement may have parameters for
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["hour", "subscription_id", "mode"],
            set_=new,
            where=CountedUsage.admitted < statement.excluded.admitted,
        ),
        list(rows),
    )


async def subscriptions_of(
    session: AsyncSession, account_ids: Collection[str], *, start: datetime, end: datetime
) -> list[CountedSubscription]:
    """Return the accounts' subscriptions that ran at any moment in [start, end), whatever became of them."""
    return await _subscriptions(session, Subscription.account_id.in_(account_ids), *_ran(start, end))


def _counters(
    subscription: CountedSubscription, mode: Mode, *, start: datetime, end: datetime, now: datetime
) -> Iterable[PeriodCounter]:
    """Yield the counters of every period that has an hour in [start, end); their hours reach up to the present."""
    until = hour_number(to_ms(now)) + 1
    hour = start
    while hour < end:
        counter = period_counter_of(subscription, mode, hour, until=until)
        yield counter
        hour = from_ms((counter.hours[-1] + 1) * HOUR_MS)


async def _subscriptions_after(
    session: AsyncSession, last_id: str, *, start: datetime, end: datetime
) -> list[CountedSubscription]:
    # an hour more: the gateway may hear of the end of a subscription a little later
    return await _subscriptions(session, Subscription.id > last_id, *_ran(start - HOUR, end), limit=PAGE)


def _ran(start: datetime, end: datetime) -> tuple[ColumnElement[bool], ...]:
    return Subscription.started_at < end, Subscription.ends_at.is_(None) | (Subscription.ends_at > start)


async def _subscriptions(
    session: AsyncSession, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[CountedSubscription]:
    statement = (
        select(
            Subscription.id,
            Subscription.account_id,
            ApiProduct.code,
            Subscription.anchor_at,
            Subscription.interval,
            Subscription.time_zone,
            Subscription.started_at,
            Subscription.ends_at,
        )
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .where(*conditions)
        .order_by(Subscription.id)
        .limit(limit)
    )
    return [CountedSubscription(*row) for row in await session.execute(statement)]


def _row(counter: PeriodCounter, hour: int, found: CountedHour, now: datetime) -> dict[str, Any]:
    return {
        "hour": from_ms(hour * HOUR_MS),
        "subscription_id": counter.subscription.id,
        "mode": counter.mode.value,
        "account_id": counter.subscription.account_id,
        "product": counter.subscription.product,
        "period_start": counter.period_start,
        "admitted": found.admitted,
        "not_counted": found.not_counted,
        "numbers": [numbers._asdict() for numbers in found.numbers],
        "counted_at": now,
    }


async def _note(session: AsyncSession, *, counted_until: datetime) -> None:
    statement = insert(CompletenessRun).values(id=1, counted_until=counted_until)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_={"counted_until": counted_until})
    )
