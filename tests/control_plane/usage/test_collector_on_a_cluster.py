"""The collector on a Redis Cluster: redelivery, shards and a failover, with every call counted once."""

import asyncio
import itertools

import pytest
import redis as redis_client

from control_plane.foundation.redis import create_redis
from gateway_contract.redis_names import shipper_positions, slot_of, usage_shard, usage_stream
from tests.control_plane.usage.test_collector import TestCrashes as Crashes
from tests.control_plane.usage.test_collector import positions, waiting

SHARDS = 2


@pytest.fixture
async def redis(cluster_url):
    client = create_redis(cluster_url, decode_responses=False)
    yield client
    await client.aclose()


class TestCrashes(Crashes):
    """What holds on one server holds on a cluster."""


class TestShards:
    async def test_have_collectors_that_publish_the_positions_of_their_own_shippers(
        self, make_gateway, make_collector, redis, sessions, store
    ):
        gateways = [
            make_gateway(shipper=f"node_{number}", numbers=itertools.count(100 * number + 1))
            for number in range(8)
        ]
        by_shard = {shard: [] for shard in range(SHARDS)}
        for gateway in gateways:
            gateway.shard = usage_shard(gateway.shipper, SHARDS)
            by_shard[gateway.shard].append(gateway)
            await gateway.ship(gateway.calls(3))
        assert all(by_shard.values())
        for shard in by_shard:
            collector = make_collector(shard=shard, shards=SHARDS)
            while await collector.collect():
                pass
            await collector.collect()
            await collector._housekeep()
        assert store.count_events() == 24
        for gateway in gateways:
            published = await redis.hgetall(shipper_positions(gateway.shard, gateway.shipper))
            assert published == {b"seg-1": b"%d" % gateway.position}
            assert not await redis.exists(shipper_positions(1 - gateway.shard, gateway.shipper))


class TestFailover:
    async def test_entries_are_collected_from_the_replica_that_takes_over(
        self, own_valkey_cluster, make_gateway, make_collector, sessions, store
    ):
        cluster = own_valkey_cluster()
        async with create_redis(cluster.url, decode_responses=False) as client:
            gateway = make_gateway(redis=client)
            collector = make_collector(redis=client)
            stop = asyncio.Event()
            running = asyncio.create_task(collector.run(stop))
            await gateway.ship(gateway.calls(10))
            await until(lambda: store.count_events() == 10)
            victim = cluster.primary_of(slot_of(usage_stream(0)))
            with redis_client.Redis.from_url(victim.url) as direct:
                direct.wait(1, 5_000)
            await asyncio.to_thread(victim.kill)
            await ship_when_possible(gateway, 10)
            await until(lambda: store.count_events() == 20)
            stop.set()
            await asyncio.wait_for(running, 30)
            assert await positions(sessions) == {"seg-1": gateway.position}
            assert await waiting(client) == 0


async def until(condition, *, seconds=30.0):
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)


async def ship_when_possible(gateway, count):
    """Ship again from the same position until it is taken, as a shipper does."""
    calls, start = gateway.calls(count), gateway.position
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        gateway.position = start
        try:
            await gateway.ship(calls)
        except redis_client.RedisError:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.2)
        else:
            return
