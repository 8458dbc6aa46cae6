"""What the collector adds to events from the account records in Redis, and that no figure depends on it."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.usage import metrics
from control_plane.usage.collect.enrichment import CACHE_SECONDS, PAUSE_SECONDS, AccountCache, KeptDays
from control_plane.usage.store import EventStore
from gateway_contract.records import AccountRecord, AccountStatus, ProductGrant, encode_record
from gateway_contract.redis_names import account_record

# long enough for events of a fixed day
KEPT = KeptDays(default_days=3000)
ADDED = "SELECT account_id, product, subscription_id, plan, retention_days FROM usage_events FINAL ORDER BY ALL"


def record(account_id: str, **plans: str) -> str:
    """Return an account's record with one subscription for each product."""
    products = {
        product: ProductGrant(
            subscription_id=f"sub_{account_id}_{product}",
            plan=plan,
            plan_name=plan,
            plan_version=3,
            windows=(),
            quota=None,
            periods=(),
        )
        for product, plan in plans.items()
    }
    return encode_record(AccountRecord(account_id, account_id, AccountStatus.ACTIVE, 1, products))


def added(store: EventStore) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in store.query(ADDED, {})}


def looked_up(result: str) -> float:
    return metrics.ENRICHED.labels(result)._value.get()


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(redis: Redis, clock: Clock) -> AccountCache:
    return AccountCache(redis, clock=clock)


class TestEvents:
    async def test_carry_the_subscription_and_plan_of_their_account_and_product(
        self, gateway, collect, store, redis, cache
    ):
        await redis.set(account_record("acc_1"), record("acc_1", weather="starter", maps="growth"))
        await redis.set(account_record("acc_2"), record("acc_2", weather="free"))
        calls = [
            *gateway.calls(2, account="acc_1"),
            *gateway.calls(1, account="acc_1", product="maps"),
            *gateway.calls(1, account="acc_2"),
            *gateway.calls(1, account="acc_2", product="maps"),
            *gateway.calls(1, account="acc_unknown"),
        ]
        await gateway.ship([*calls, calls[0].line() | {"ru": "", "ra": "", "id": "e" * 32}])
        kept = KeptDays(default_days=3000, by_plan={("growth", 3): 3300, ("free", 2): 3600})
        await collect(accounts=cache, kept=kept)
        assert added(store) == {
            ("acc_1", "weather", "sub_acc_1_weather", "starter", 3000),
            ("acc_1", "maps", "sub_acc_1_maps", "growth", 3300),
            ("acc_2", "weather", "sub_acc_2_weather", "free", 3000),
            ("acc_2", "maps", "", "", 3000),
            # whatever its plan promises, its events live as long
            ("acc_unknown", "weather", "", "", 3600),
            ("", "", "", "", 3000),
        }

    async def test_give_the_same_figures_without(
        self, gateway, collect, aggregate, store, redis, cache, own_figures
    ):
        calls = [*gateway.calls(5), *gateway.calls(3, account="acc_2", status=503), *gateway.calls(2, tokens=7)]
        await gateway.ship(calls)
        await collect(kept=KEPT)
        await aggregate()
        without = await own_figures()
        assert without
        await redis.set(account_record("acc_1"), record("acc_1", weather="starter"))
        gateway.position = 0
        await gateway.ship(calls)
        await collect(accounts=cache, kept=KEPT)
        await aggregate()
        assert ("acc_1", "weather", "sub_acc_1_weather", "starter", 3000) in added(store)
        assert await own_figures() == without

    async def test_are_stored_without_where_redis_does_not_answer_in_time(
        self, gateway, collect, store, own_valkey
    ):
        other = Redis.from_url(own_valkey().url)
        try:
            await other.set(account_record("acc_1"), record("acc_1", weather="starter"))
            await other.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
            await gateway.ship(gateway.calls(3))
            before = looked_up("failed")
            cache = AccountCache(other, timeout_seconds=0.05)
            await asyncio.wait_for(collect(accounts=cache, kept=KEPT), 30)
        finally:
            await other.aclose()
        assert added(store) == {("acc_1", "weather", "", "", 3000)}
        assert looked_up("failed") == before + 1


@pytest.fixture
def own_figures(sessions: async_sessionmaker[AsyncSession]) -> Callable[[], Any]:
    async def figures() -> list[Any]:
        columns = "account_id, hour, status, outcome, calls, units, billable_calls, billable_units, dimensions"
        async with sessions() as session:
            return list(await session.execute(text(f"SELECT {columns} FROM usage_hourly ORDER BY 1, 2, 3, 4, 5")))

    return figures


class TestCache:
    async def test_asks_redis_once_a_minute_for_an_account(self, redis, cache, clock):
        await redis.set(account_record("acc_1"), record("acc_1", weather="starter"))
        assert (await cache.grants(["acc_1"]))["acc_1"]["weather"].plan == "starter"
        await redis.set(account_record("acc_1"), record("acc_1", weather="growth"))
        assert (await cache.grants(["acc_1"]))["acc_1"]["weather"].plan == "starter"
        clock.now += CACHE_SECONDS
        assert (await cache.grants(["acc_1"]))["acc_1"]["weather"].plan == "growth"

    async def test_remembers_accounts_that_have_no_record_and_odd_records(self, redis, cache, clock):
        await redis.set(account_record("acc_odd"), b'{"products": [1]}')
        missing, unreadable = looked_up("missing"), looked_up("unreadable")
        for _ in range(3):
            assert await cache.grants(["acc_none", "acc_odd"]) == {"acc_none": {}, "acc_odd": {}}
        assert (looked_up("missing"), looked_up("unreadable")) == (missing + 1, unreadable + 1)
        await redis.set(account_record("acc_none"), record("acc_none", weather="starter"))
        clock.now += CACHE_SECONDS
        assert (await cache.grants(["acc_none"]))["acc_none"]["weather"].plan == "starter"

    async def test_is_bounded_and_forgets_what_was_read_longest_ago(self, redis, clock):
        cache = AccountCache(redis, limit=3, clock=clock)
        assert len(await cache.grants([f"acc_{number}" for number in range(5)])) == 5
        assert len(cache) == 3
        before = looked_up("missing")
        await cache.grants(["acc_2", "acc_3", "acc_4"])
        assert looked_up("missing") == before
        await cache.grants(["acc_0"])
        assert looked_up("missing") == before + 1
        assert len(cache) == 3

    async def test_leaves_a_redis_that_failed_alone_for_a_while(self, clock):
        away = Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=1)
        try:
            cache = AccountCache(away, clock=clock)
            before = looked_up("failed")
            assert await cache.grants(["acc_1"]) == {}
            began = time.perf_counter()
            for _ in range(1_000):
                assert await cache.grants(["acc_1"]) == {}
            assert looked_up("failed") == before + 1_001
            assert cache._resume_at == clock.now + PAUSE_SECONDS
        finally:
            await away.aclose()
        assert time.perf_counter() - began < 30
