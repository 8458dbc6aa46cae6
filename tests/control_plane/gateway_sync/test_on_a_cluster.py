"""The projector on a Redis Cluster: what one server loses is noticed and made anew, whichever server it is."""

import asyncio
from dataclasses import replace

import pytest
import redis

from control_plane.foundation.clock import floor_hour, utc_now
from control_plane.foundation.redis import create_redis
from control_plane.gateway_sync.config import ProjectorConfig
from control_plane.gateway_sync.projection_state import begin_sweep, finish_sweep, read_state
from control_plane.gateway_sync.sweep import SweepInterruptedError, rebuild
from control_plane.keys.operations import revoke_key
from gateway_contract.counters import UNITS
from gateway_contract.records import KeyStatus
from gateway_contract.redis_names import (
    KEY_BUCKETS,
    account_record,
    account_versions,
    key_bucket,
    key_record,
    projection_marker,
    slot_of,
)
from tests.control_plane.gateway_sync.conftest import PUBLIC_URL, Gateway
from tests.control_plane.gateway_sync.test_projector import running


@pytest.fixture
def redis_url(cluster_url):
    return cluster_url


@pytest.fixture
async def customers(shop, now):
    await shop.add_catalog(now)
    return [await shop.add_customer(now, keys=4, name=f"Customer {number}") for number in range(6)]


@pytest.fixture
def config(database_url, redis_url):
    return ProjectorConfig(
        database_url=database_url, redis_url=redis_url, public_url=PUBLIC_URL, poll_seconds=0.05
    )


@pytest.fixture
async def used(shop, customers, now):
    """A customer with 12 units of usage in this hour, and the hour."""
    hour = floor_hour(now)
    await shop.add_usage(customers[0], hour, units=12)
    return customers[0], hour


async def run_rebuild(shop, gateway, now, **options):
    return await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now, **options)


def flush(node):
    with redis.Redis.from_url(node.url) as client:
        client.flushall()


class TestProjection:
    async def test_writes_keys_accounts_and_versions_to_the_nodes_they_belong_to(
        self, gateway, project, now, customers, valkey_cluster
    ):
        await project(now)
        for customer in customers:
            assert "weather" in (await gateway.account(customer.account_id)).products
            assert set(await gateway.versions(customer.account_id)) == {"account", *customer.keys}
            for key_hash in customer.hashes:
                assert (await gateway.key(key_hash)).account_id == customer.account_id
        names = [key_record(key_hash) for customer in customers for key_hash in customer.hashes]
        assert len({valkey_cluster.primary_of(slot_of(name)).port for name in names}) == 3

    async def test_does_so_again_on_a_node_that_lost_the_scripts(self, shop, gateway, project, now, customers):
        await project(now)
        await gateway.client.script_flush()
        more = await shop.add_customer(utc_now(), keys=4, name="One more")
        await project(utc_now())
        assert None not in [await gateway.key(key_hash) for key_hash in more.hashes]


class TestMarkers:
    async def test_lie_in_the_slots_of_the_key_records_they_vouch_for(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        assert (await read_state(gateway.client)).complete
        for key_hash in (key_hash for customer in customers for key_hash in customer.hashes):
            marker = projection_marker(key_bucket(key_hash))
            assert slot_of(marker) == slot_of(key_record(key_hash))
            assert await gateway.client.exists(marker)

    @pytest.mark.parametrize("number", range(3))
    @pytest.mark.usefixtures("customers")
    async def test_of_each_node_are_missed_when_it_is_emptied(self, shop, gateway, now, valkey_cluster, number):
        await run_rebuild(shop, gateway, now)
        flush(valkey_cluster.nodes[number])
        assert not (await read_state(gateway.client)).complete
        await run_rebuild(shop, gateway, now)
        assert (await read_state(gateway.client)).complete

    async def test_are_not_written_when_a_node_was_emptied_meanwhile(
        self, shop, gateway, now, customers, valkey_cluster
    ):
        def flush_one(progress):
            if progress.step == "keys":
                flush(valkey_cluster.nodes[1])

        with pytest.raises(SweepInterruptedError):
            await run_rebuild(shop, gateway, now, progress=flush_one)
        assert not (await read_state(gateway.client)).complete

    async def test_of_an_older_sweep_are_not_written(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        marker = (await read_state(gateway.client)).marker
        first = await begin_sweep(gateway.client, forget_marker=True)
        second = await begin_sweep(gateway.client, forget_marker=True)
        assert not await finish_sweep(gateway.client, first, marker)
        assert await finish_sweep(gateway.client, second, marker)
        assert await gateway.client.exists(projection_marker(KEY_BUCKETS[0]))


class TestRunProjector:
    async def test_makes_an_emptied_node_anew_with_its_counters(
        self, gateway, config, eventually, valkey_cluster, used
    ):
        customer, hour = used
        async with running(config):
            await eventually(lambda: is_complete(gateway))
            flush(valkey_cluster.primary_of(slot_of(account_record(customer.account_id))))
            await eventually(lambda: gateway.account(customer.account_id))
            await eventually(lambda: is_complete(gateway))
            assert await gateway.client.hget(await gateway.counters(customer, now=hour), UNITS) == "12"

    async def test_resumes_after_a_failover_and_looks_through_everything_again(
        self, shop, used, config, own_valkey_cluster, eventually
    ):
        cluster, (customer, hour) = own_valkey_cluster(), used
        config = replace(config, redis_url=cluster.url)
        async with create_redis(cluster.url) as client, running(config):
            gateway = Gateway(client)
            await eventually(lambda: is_complete(gateway))
            before = (await read_state(client)).marker
            victim = cluster.primary_of(slot_of(account_versions(customer.account_id)))
            # what a failover may lose: writes that no replica had yet
            counters = await gateway.counters(customer, now=hour)
            await client.delete(counters)
            await client.hdel(account_versions(customer.account_id), customer.keys[1])
            with redis.Redis.from_url(victim.url) as direct:
                direct.wait(1, 5_000)
            await asyncio.to_thread(victim.kill)
            async with shop.sessions() as session, session.begin():
                await revoke_key(session, key_id=customer.keys[0], actor="test", now=utc_now())
            await eventually(lambda: is_revoked(gateway, customer))
            await eventually(lambda: is_complete(gateway))
            state = await read_state(client)
            assert len(state.run_ids) == 3
            assert state.run_ids != before.run_ids
            assert (await gateway.versions(customer.account_id))[customer.keys[0]] == 2
            assert await client.hget(counters, UNITS) == "12"
            assert set(await gateway.versions(customer.account_id)) == {"account", *customer.keys}


async def is_complete(gateway):
    try:
        return (await read_state(gateway.client)).complete
    except redis.RedisError:
        return False


async def is_revoked(gateway, customer):
    try:
        record = await gateway.key(customer.hashes[0])
    except redis.RedisError:
        return False
    return record is not None and record.status is KeyStatus.REVOKED
