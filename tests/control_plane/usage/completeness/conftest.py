"""The gateway's counters as its limit script keeps them, and rounds of checks at chosen moments."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms
from control_plane.foundation.outbox import OutboxRow
from control_plane.foundation.redis import RedisClient, create_redis
from control_plane.usage.completeness.tables import CountedUsage, HourCheck
from control_plane.usage.completeness.worker import CheckConfig, CompletenessWorker
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.store import EventStore
from gateway_contract.counters import CALLS, UNITS, hour_calls, hour_number, hour_units
from gateway_contract.modes import Mode
from gateway_contract.redis_names import period_counters

HOUR = timedelta(hours=1)


@dataclass
class Counter:
    """One subscription's counter of March 2026, in one mode."""

    redis: RedisClient
    subscription: str
    account: str = "acc_1"
    mode: Mode = Mode.LIVE

    @property
    def name(self) -> str:
        start_ms = to_ms(datetime.fromisoformat("2026-03-01T00:00:00+00:00"))
        return period_counters(self.account, self.subscription, start_ms, self.mode)

    async def admit(self, calls: Sequence[Any]) -> None:
        """Count calls as the script did when it numbered them."""
        for call in calls:
            hour = hour_number(to_ms(call.at))
            await self.redis.hset(self.name, CALLS, call.number)
            for field in (UNITS, hour_calls(hour), hour_units(hour)):
                await self.redis.hincrby(self.name, field, 1)


@pytest.fixture
async def counters(redis_url: str) -> AsyncIterator[RedisClient]:
    client = create_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def counter(counters: RedisClient, catalog: Any, noon: datetime) -> Counter:
    """The counter of a subscription to `weather` that began three days before."""
    await catalog.account()
    await catalog.product()
    version = await catalog.plan_version()
    subscription = await catalog.subscription(("ph_1", version, noon - timedelta(days=3), None))
    return Counter(counters, subscription)


@pytest.fixture
def lose(counters: RedisClient) -> Callable[[], Any]:
    return counters.flushall


@dataclass
class Checks:
    """Seals and checks at chosen moments."""

    sessions: async_sessionmaker[AsyncSession]
    worker: CompletenessWorker
    aggregate: Callable[..., Any]

    async def seal(self, now: datetime) -> None:
        await self.aggregate(now)
        async with self.sessions() as session, session.begin():
            await seal_hours(session, config=SealingConfig(), now=now)

    async def run(self, now: datetime) -> int:
        return await self.worker.run_round(now=now)

    async def rows(self) -> list[CountedUsage]:
        async with self.sessions() as session:
            rows = select(CountedUsage).order_by(CountedUsage.hour, CountedUsage.mode)
            return list(await session.scalars(rows))

    async def row(self) -> CountedUsage:
        (row,) = await self.rows()
        return row

    async def hour(self, account_id: str = "acc_1") -> HourCheck:
        async with self.sessions() as session:
            statement = select(HourCheck).where(HourCheck.account_id == account_id)
            return (await session.scalars(statement)).one()

    async def alerts(self) -> list[dict[str, Any]]:
        async with self.sessions() as session:
            statement = select(OutboxRow).where(OutboxRow.topic == "usage.incomplete").order_by(OutboxRow.id)
            return [row.payload for row in await session.scalars(statement)]


@pytest.fixture
def checks(
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    counters: RedisClient,
    aggregate: Callable[..., Any],
) -> Checks:
    worker = CompletenessWorker(
        config=CheckConfig(), sessions=sessions, store=store, client=counters, chance=random.Random(1)
    )
    return Checks(sessions, worker, aggregate)
