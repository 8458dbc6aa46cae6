"""The projector behind one address: another server takes over, or TLS is spoken."""

import asyncio
from dataclasses import replace

import pytest
import redis

from control_plane.foundation.clock import utc_now
from control_plane.foundation.redis import create_redis
from control_plane.gateway_sync.projection_state import read_state
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.keys.operations import revoke_key
from gateway_contract.records import KeyStatus
from tests.certificates import make_certificate
from tests.control_plane.gateway_sync.conftest import Gateway
from tests.control_plane.gateway_sync.test_projector import config, running
from tests.forwarder import Forwarder

__all__ = ["config"]


@pytest.fixture
async def ada(shop, now):
    await shop.add_catalog(now)
    return await shop.add_customer(now)


class TestTakenOverByAReplica:
    async def test_what_changed_since_goes_to_the_server_that_took_over(
        self, shop, ada, config, own_valkey, eventually
    ):
        old, new = own_valkey(), own_valkey()
        with Forwarder(old.port) as address:
            behind = replace(config, redis_url=f"redis://127.0.0.1:{address.port}/0", poll_seconds=0.05)
            async with create_redis(old.url) as first, create_redis(new.url) as client, running(behind):
                gateway = Gateway(client)
                await asyncio.to_thread(follow, new, old)
                await eventually(lambda: is_complete(Gateway(first)))
                before = await read_state(first)
                await client.replicaof("NO", "ONE")
                await asyncio.to_thread(follow, old, new)
                address.target_port = new.port
                async with shop.sessions() as session, session.begin():
                    await revoke_key(session, key_id=ada.keys[0], actor="test", now=utc_now())
                await eventually(lambda: is_revoked(gateway, ada))
                await eventually(lambda: is_complete(gateway))
                with pytest.raises(redis.ReadOnlyError):
                    await read_state(first)
                assert (await read_state(client)).marker.run_ids != before.marker.run_ids


class TestTls:
    async def test_is_spoken_to_one_server(self, valkey_server, tmp_path):
        context, trusted = make_certificate(tmp_path, "redis")
        with Forwarder(valkey_server.port, tls=context) as address:
            url = f"rediss://127.0.0.1:{address.port}/0"
            async with create_redis(f"{url}?ssl_ca_certs={trusted}") as client:
                assert await client.ping()
                assert await RecordWriter(client).write_keys([]) == 0
            async with create_redis(url) as client:
                with pytest.raises(redis.ConnectionError):
                    await client.ping()

    async def test_is_spoken_to_a_cluster(self, own_valkey_cluster, tmp_path):
        context, trusted = make_certificate(tmp_path, "redis")
        cluster = own_valkey_cluster(primaries=1, replicas=0)
        with Forwarder(cluster.nodes[0].port, tls=context) as address:
            with redis.Redis.from_url(cluster.nodes[0].url) as direct:
                direct.config_set("cluster-announce-port", address.port)
            url = f"rediss+cluster://127.0.0.1:{address.port}?ssl_ca_certs={trusted}"
            async with create_redis(url) as client:
                assert await client.set("a", "b")
                assert await client.get("a") == "b"


class TestUrl:
    @pytest.mark.parametrize("url", ["redis+cluster://:secret@host:7000/2", "rediss+cluster://host:secret"])
    def test_that_makes_no_sense_is_an_error_without_it(self, url):
        with pytest.raises(ValueError, match=r"must be a number|no database") as raised:
            create_redis(url)
        assert "secret" not in str(raised.value)


def follow(replica, primary):
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", str(primary.port))
        while client.role()[3] != b"connected":
            pass


async def is_complete(gateway):
    return (await read_state(gateway.client)).complete


async def is_revoked(gateway, customer):
    record = await gateway.key(customer.hashes[0])
    return record is not None and record.status is KeyStatus.REVOKED
