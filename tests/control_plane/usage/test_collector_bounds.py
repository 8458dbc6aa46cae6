"""What a collector holds in memory, what stays in the stream while a store is away, and what is said of both."""

import asyncio
import json
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import OperationalError
from redis.asyncio import Redis

from control_plane.foundation.clock import from_ms
from control_plane.usage import metrics
from control_plane.usage.collect import stream
from control_plane.usage.collect.collector import Collector, Progress
from control_plane.usage.collect.entries import EntryBatch
from gateway_contract.redis_names import COLLECTOR_GROUP, usage_stream
from gateway_contract.usage_lines import MAX_BYTES_PER_ENTRY, MAX_LINES_PER_ENTRY

LARGE = 400 * 1024


def large_entry(gateway: Any) -> bytes:
    """Return the lines of an entry about as large as a shipper makes them."""
    (call,) = gateway.calls(1)
    return json.dumps(call.line() | {"u": {"padding": "x" * LARGE}}).encode()


async def consumers(redis: Redis) -> dict[str, int]:
    """Return how many entries are pending for each consumer."""
    found = await redis.xinfo_consumers(usage_stream(0), COLLECTOR_GROUP)
    return {consumer["name"].decode(): consumer["pending"] for consumer in found}


def remember_batches(collector: Collector) -> list[EntryBatch]:
    seen: list[EntryBatch] = []

    async def look(progress: Progress) -> None:
        seen.append(progress.batch)

    collector.steps = (("look", look), *collector.steps)
    return seen


async def make_group(make_collector: Any) -> None:
    await make_collector().collect()


class TestBounds:
    async def test_hold_for_what_is_read(self, gateway, make_collector, store):
        await make_group(make_collector)
        for _ in range(12):
            await gateway.ship_bytes(large_entry(gateway))
        bound = 3 * MAX_BYTES_PER_ENTRY
        collector: Collector = make_collector(max_bytes=bound, max_age_seconds=5.0)
        seen = remember_batches(collector)
        while await collector.collect():
            pass
        assert max(batch.byte_count for batch in seen) <= bound
        assert min(len(batch.entries) for batch in seen[:-1]) >= 3
        assert store.count_events() == 12

    async def test_hold_for_entries_that_a_dead_collector_left(self, gateway, make_collector, store, redis):
        await make_group(make_collector)
        for _ in range(14):
            await gateway.ship_bytes(large_entry(gateway))
        dead: Collector = make_collector(max_age_seconds=5.0)
        assert len((await dead.read_batch(wait_seconds=0)).entries) == 14
        bound = 2 * MAX_BYTES_PER_ENTRY
        collector: Collector = make_collector(max_bytes=bound)
        seen = remember_batches(collector)
        await collector._housekeep()
        assert max(batch.byte_count for batch in seen) <= bound
        assert sum(len(batch.entries) for batch in seen) == 14
        assert store.count_events() == 14
        assert await redis.xlen(usage_stream(0)) == 0

    async def test_hold_for_lines(self, gateway, make_collector):
        await make_group(make_collector)
        for _ in range(8):
            await gateway.ship(gateway.calls(60))
        collector: Collector = make_collector(max_lines=MAX_LINES_PER_ENTRY + 100, max_age_seconds=5.0)
        seen = remember_batches(collector)
        while await collector.collect():
            pass
        assert max(batch.line_count for batch in seen) <= MAX_LINES_PER_ENTRY + 100
        assert len(seen) >= 3

    async def test_an_entry_larger_than_any_shippers_is_worked_off_alone(self, gateway, make_collector, store):
        """Nobody can know before it is read; what comes after it is read one by one until they are small again."""
        await make_group(make_collector)
        (call,) = gateway.calls(1)
        huge = json.dumps(call.line() | {"u": {"padding": "x" * 3 * MAX_BYTES_PER_ENTRY}}).encode()
        for lines in (huge, huge, *(large_entry(gateway) for _ in range(3))):
            await gateway.ship_bytes(lines)
        collector: Collector = make_collector(max_bytes=2 * MAX_BYTES_PER_ENTRY, entries_per_read=1)
        seen = remember_batches(collector)
        while await collector.collect():
            pass
        assert [len(batch.entries) for batch in seen[:2]] == [1, 1]
        assert store.count_events() == 4


class TestBackpressure:
    async def test_while_the_store_is_away_everything_stays_in_the_stream(
        self, gateway, make_collector, store, redis, monkeypatch
    ):
        """The shipper adds no more once the stream is full, and the spool holds the rest."""
        for _ in range(20):
            await gateway.ship(gateway.calls(3))
        insert, attempts, away = store.insert_block, 0, asyncio.Event()

        def fail(*_block: Any) -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                loop.call_soon_threadsafe(away.set)
            raise OperationalError("the event store is away")

        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(store, "insert_block", fail)
        collector: Collector = make_collector(max_lines=1, wait_seconds=0.01)
        monkeypatch.setattr(type(collector), "_housekeep", nothing)
        running = asyncio.create_task(collector.run(stop))
        try:
            await asyncio.wait_for(away.wait(), 30)
            assert await redis.xlen(usage_stream(0)) == 20
            assert sum((await consumers(redis)).values()) == 1  # the batch in hand
            monkeypatch.setattr(store, "insert_block", insert)
            async with asyncio.timeout(30):
                while await redis.xlen(usage_stream(0)):  # noqa: ASYNC110 - Redis sets no event
                    await asyncio.sleep(0.02)
        finally:
            stop.set()
            await running
        assert store.count_events() == 60


async def nothing(self: Collector) -> None:
    self._housekeeping_at = float("inf")


class TestHousekeeping:
    async def test_deletes_consumers_of_dead_processes_once_nothing_is_pending_for_them(
        self, gateway, make_collector, redis, monkeypatch
    ):
        await make_group(make_collector)
        await gateway.ship(gateway.calls(2))
        idle, dead = make_collector(), make_collector()
        await dead.read_batch(wait_seconds=0)
        await idle.read_batch(wait_seconds=0)
        assert sorted((await consumers(redis)).values()) == [0, 1]
        tidier = make_collector(claim_after_seconds=60.0)
        await tidier._housekeep()
        assert len(await consumers(redis)) == 3  # they may be living
        monkeypatch.setattr(stream, "CONSUMER_GONE_MS", 0)
        await tidier._housekeep()
        assert list((await consumers(redis)).values()) == [1]  # what is pending for it is nobody else's yet
        await make_collector()._housekeep()
        assert await consumers(redis) == {}
        assert await redis.xlen(usage_stream(0)) == 0

    async def test_says_how_much_is_waiting_and_how_old_it_is(self, gateway, make_collector, redis):
        await make_group(make_collector)
        first = await gateway.ship(gateway.calls(1))
        for _ in range(4):
            await gateway.ship(gateway.calls(1))
        busy = make_collector(max_lines=1)
        assert [len((await busy.read_batch(wait_seconds=0)).entries) for _ in range(2)] == [1, 1]
        now = from_ms(int(first.split(b"-")[0]) + 90_000)
        await make_collector(now=now, claim_after_seconds=60.0)._housekeep()
        gauges = (metrics.STREAM_LENGTH, metrics.PENDING, metrics.OLDEST_AGE)
        assert [gauge.labels("0")._value.get() for gauge in gauges] == [5, 2, pytest.approx(90)]

    async def test_says_so_before_anything_was_ever_shipped(self, make_collector):
        await make_collector()._housekeep()
        gauges = (metrics.STREAM_LENGTH, metrics.PENDING, metrics.OLDEST_AGE)
        assert [gauge.labels("0")._value.get() for gauge in gauges] == [0, 0, 0]

    async def test_says_how_large_batches_are(self, gateway, make_collector):
        def counted() -> float:
            return metrics.BATCH_LINES._sum.get()

        await make_group(make_collector)
        before = counted()
        await gateway.ship(gateway.calls(7))
        await make_collector().collect()
        assert counted() == before + 7
