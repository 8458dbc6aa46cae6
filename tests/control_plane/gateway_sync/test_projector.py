"""The projector as it runs: its loops, against real stores that are emptied, stopped and killed."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from control_plane.accounts.operations import suspend_account
from control_plane.foundation.clock import utc_now
from control_plane.foundation.redis import create_redis
from control_plane.gateway_sync.config import ProjectorConfig
from control_plane.gateway_sync.projection_state import read_state
from control_plane.gateway_sync.projector import run_projector
from control_plane.keys.operations import revoke_key
from gateway_contract.counters import UNITS
from gateway_contract.records import AccountStatus, KeyStatus, decode_account_record, decode_key_record
from gateway_contract.redis_names import (
    KEY_BUCKETS,
    account_record,
    account_versions,
    key_record,
    projection_marker,
)

PUBLIC_URL = "https://api.example.com"

MARKER = projection_marker(KEY_BUCKETS[-1])


@asynccontextmanager
async def running(config: ProjectorConfig, *, copies: int = 1):
    stop = asyncio.Event()
    tasks = [asyncio.create_task(run_projector(config, stop)) for _ in range(copies)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)


@pytest.fixture
def config(database_url, redis_url):
    return ProjectorConfig(database_url=database_url, redis_url=redis_url, public_url=PUBLIC_URL)


@pytest.fixture
async def ada(shop, now):
    await shop.add_catalog(now)
    return await shop.add_customer(now)


async def revoke(shop, customer):
    async with shop.sessions() as session, session.begin():
        await revoke_key(session, key_id=customer.keys[0], actor="test", now=utc_now())


class TestRunProjector:
    async def test_projects_what_was_there_and_what_comes(self, shop, gateway, config, eventually, ada):
        async with running(config, copies=2):
            await eventually(lambda: gateway.key(ada.hashes[0]))
            bob = await shop.add_customer(utc_now(), name="Bob")
            await eventually(lambda: gateway.key(bob.hashes[0]))
            await eventually(lambda: gateway.client.exists(MARKER))

    async def test_wakes_at_once_for_a_revoked_key(self, shop, gateway, config, eventually, ada):
        """Polling every hour, so only the notification can be what wakes it."""
        async with running(ProjectorConfig(**_values(config) | {"poll_seconds": 3600})):
            await eventually(lambda: gateway.client.exists(MARKER))
            await eventually(lambda: _is_listening(shop))
            await revoke(shop, ada)
            await eventually(lambda: _is_revoked(gateway, ada))
            assert (await gateway.versions(ada.account_id))[ada.keys[0]] == 2

    async def test_rebuilds_an_emptied_redis_with_its_counters(self, shop, gateway, config, eventually, ada):
        hour = utc_now().replace(minute=0, second=0, microsecond=0)
        await shop.add_usage(ada, hour, units=12)
        async with running(config):
            await eventually(lambda: gateway.client.exists(MARKER))
            await gateway.client.flushall()
            await eventually(lambda: gateway.client.exists(MARKER))
            assert await gateway.key(ada.hashes[0]) is not None
            counters = await gateway.counters(ada, now=hour)
            assert await gateway.client.hget(counters, UNITS) == "12"

    async def test_settles_sealed_hours(self, shop, gateway, config, eventually, ada):
        hour = utc_now().replace(minute=0, second=0, microsecond=0)
        async with running(config):
            await eventually(lambda: gateway.account(ada.account_id))
            await shop.add_usage(ada, hour, units=4, sealed=True)
            await shop.seal(ada, hour, revision=1)
            counters = await gateway.counters(ada, now=hour)
            await eventually(lambda: _has(gateway, counters, "4"))

    async def test_goes_on_after_redis_was_away(self, shop, config, own_valkey, eventually, ada):
        server = own_valkey()
        async with running(ProjectorConfig(**_values(config) | {"redis_url": server.url})):
            await eventually(lambda: _is_complete(server.url))
            server.kill()
            await revoke(shop, ada)
            await asyncio.sleep(0.5)
            server.start()
            await eventually(lambda: _is_complete(server.url))
            async with create_redis(server.url) as client:
                record = decode_key_record(await client.get(key_record(ada.hashes[0])))
                assert record.status is KeyStatus.REVOKED

    async def test_revokes_and_suspends_in_a_redis_that_is_out_of_memory(
        self, shop, config, own_valkey, eventually, ada
    ):
        """Gateways go on reading there, so what is not written would be served for as long as it lasts."""
        server = own_valkey()
        bob = await shop.add_customer(utc_now(), name="Bob")
        async with (
            running(ProjectorConfig(**_values(config) | {"redis_url": server.url})),
            create_redis(server.url) as client,
        ):
            await eventually(lambda: _is_complete(server.url))
            before = int(await client.hget(account_versions(bob.account_id), "account"))
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", 1)
            await shop.add_customer(utc_now(), name="New in the same batch")
            await revoke(shop, ada)
            async with shop.sessions() as session, session.begin():
                await suspend_account(session, account_id=bob.account_id, actor="test", now=utc_now())
            await eventually(lambda: _is_raised(client, ada.account_id, ada.keys[0]))
            await eventually(lambda: _is_raised(client, bob.account_id, "account", above=before))
            key = decode_key_record(await client.get(key_record(ada.hashes[0])))
            account = decode_account_record(await client.get(account_record(bob.account_id)))
        assert (key.status, account.status) == (KeyStatus.REVOKED, AccountStatus.SUSPENDED)

    async def test_goes_on_after_its_connections_were_cut(self, shop, gateway, config, eventually, ada):
        async with running(config):
            await eventually(lambda: gateway.client.exists(MARKER))
            async with shop.sessions() as session:
                await session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            await shop.engine.dispose()
            await revoke(shop, ada)
            await eventually(lambda: _is_revoked(gateway, ada))

    async def test_sweeps_again_after_the_interval(self, gateway, config, eventually, ada):
        async with running(ProjectorConfig(**_values(config) | {"sweep_seconds": 0.3})):
            await eventually(lambda: gateway.client.exists(MARKER))
            first = (await read_state(gateway.client)).marker

            async def swept_again():
                marker = (await read_state(gateway.client)).marker
                return marker is not None and marker.completed_at - first.completed_at >= timedelta(seconds=0.3)

            await eventually(swept_again)


def _values(config: ProjectorConfig) -> dict:
    return {name: getattr(config, name) for name in config.__slots__}


async def _is_complete(url: str) -> bool:
    async with create_redis(url) as client:
        return (await read_state(client)).complete


async def _is_listening(shop) -> bool:
    async with shop.sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN km_outbox'"))


async def _is_revoked(gateway, customer) -> bool:
    record = await gateway.key(customer.hashes[0])
    return record is not None and record.status is KeyStatus.REVOKED


async def _has(gateway, counters, units) -> bool:
    return await gateway.client.hget(counters, UNITS) == units


async def _is_raised(client, account_id, field, *, above=1) -> bool:
    return int(await client.hget(account_versions(account_id), field)) > above
