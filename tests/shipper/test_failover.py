"""The shipper when another server takes over: in a cluster, or behind the one address it knows."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from devstack.stores.valkey import EmbeddedValkey
from devstack.stores.valkey_cluster import EmbeddedValkeyCluster
from gateway_contract import redis_names
from kong_plugins.shipper.server import StreamServer
from tests.certificates import make_certificate
from tests.forwarder import Forwarder
from tests.shipper.support import Bench, FakeCollector, append, file_log_lines, wait_until

MakeBench = Callable[..., Bench]
MakeCollector = Callable[[str, str], FakeCollector]
STREAM_SLOT = redis_names.slot_of(redis_names.usage_stream(0))


def step_until(bench: Bench, done: Callable[[], bool]) -> None:
    def step() -> bool:
        bench.step(after_seconds=1)
        time.sleep(0.05)
        return done()

    wait_until(step, what="the shipper goes on")


def follow(replica: EmbeddedValkey, primary: EmbeddedValkey) -> None:
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", str(primary.port))
        wait_until(lambda: client.role()[3] == b"connected", what="the replica has its primary's data")


def take_over(new: EmbeddedValkey, old: EmbeddedValkey) -> None:
    """The replica becomes the primary, and the old primary its replica."""
    with redis.Redis.from_url(old.url) as client:
        client.wait(1, 5_000)
    with redis.Redis.from_url(new.url) as client:
        client.replicaof("NO", "ONE")
    follow(old, new)


class TestInACluster:
    def test_ships_and_deletes_what_is_committed(
        self, make_bench: MakeBench, make_collector: MakeCollector, cluster_url: str
    ) -> None:
        bench = make_bench(url=cluster_url)
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines(range(5)))
        bench.step()
        assert collector.pump()
        assert collector.has_all(range(5))
        bench.step(after_seconds=61)
        bench.step(after_seconds=1)
        assert bench.segment_files() == []

    def test_names_of_a_shipper_lie_in_its_streams_slot(self) -> None:
        names = (redis_names.shipper_epoch(0, "shp_1"), redis_names.shipper_positions(0, "shp_1"))
        assert {redis_names.slot_of(name) for name in names} == {STREAM_SLOT}

    def test_goes_on_with_the_replica_that_takes_over_and_ships_again_what_it_may_lack(
        self,
        make_bench: MakeBench,
        make_collector: MakeCollector,
        own_valkey_cluster: Callable[..., EmbeddedValkeyCluster],
    ) -> None:
        cluster = own_valkey_cluster()
        bench = make_bench(url=cluster.url)
        append(bench.live, file_log_lines(range(5)))
        bench.step()
        victim = cluster.primary_of(STREAM_SLOT)
        with redis.Redis.from_url(victim.url) as direct:
            direct.wait(1, 5_000)
            entry_id = direct.xrange(redis_names.usage_stream(0))[0][0]
            # as if the entry had never reached the replica
            direct.xdel(redis_names.usage_stream(0), entry_id)
            direct.wait(1, 5_000)
        victim.kill()
        append(bench.live, file_log_lines(range(5, 10)))
        step_until(bench, lambda: bench.value("resends_total", reason="server_changed") == 1)
        cluster.nodes.remove(victim)
        collector = make_collector(cluster.url, bench.spool.shipper_id)
        step_until(bench, lambda: collector.pump() >= 0 and collector.has_all(range(10)))
        assert not collector.gaps

    def test_says_that_redis_is_away_while_no_node_is_there(self, make_bench: MakeBench) -> None:
        bench = make_bench(url="redis+cluster://127.0.0.1:1,127.0.0.1:2")
        append(bench.live, file_log_lines([1]))
        bench.step()
        assert "Error" in bench.shipper.faults.last
        assert bench.value("redis_errors_total") == 1


class TestBehindOneAddress:
    def test_leaves_a_server_that_became_a_replica(
        self, make_bench: MakeBench, make_collector: MakeCollector, own_valkey: Callable[[], EmbeddedValkey]
    ) -> None:
        old, new = own_valkey(), own_valkey()
        with Forwarder(old.port) as address:
            url = f"redis://127.0.0.1:{address.port}/0"
            follow(new, old)
            bench = make_bench(url=url)
            append(bench.live, file_log_lines(range(5)))
            bench.step()
            take_over(new, old)
            address.target_port = new.port
            append(bench.live, file_log_lines(range(5, 10)))
            step_until(bench, lambda: bench.value("resends_total", reason="server_changed") == 1)
            collector = make_collector(new.url, bench.spool.shipper_id)
            step_until(bench, lambda: collector.pump() >= 0 and collector.has_all(range(10)))
            bench.stream.close()


class TestTls:
    def test_is_spoken_where_the_url_says_so(
        self,
        make_bench: MakeBench,
        make_collector: MakeCollector,
        own_valkey: Callable[[], EmbeddedValkey],
        tmp_path: Path,
    ) -> None:
        server = own_valkey()
        context, trusted = make_certificate(tmp_path, "redis")
        with Forwarder(server.port, tls=context) as address:
            bench = make_bench(url=f"rediss://127.0.0.1:{address.port}/0?ssl_ca_certs={trusted}")
            append(bench.live, file_log_lines(range(5)))
            bench.step()
            collector = make_collector(server.url, bench.spool.shipper_id)
            assert collector.pump()
            assert collector.has_all(range(5))


class TestUrl:
    @pytest.mark.parametrize(
        "url", ["redis+cluster://user:secret@host:7000/1", "redis+cluster://host:secret", "secret://host", ""]
    )
    def test_that_makes_no_sense_is_an_error_that_names_the_variable_and_nothing_else(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"^KM_REDIS_URL: ") as raised:
            StreamServer(url, stream="stream")
        assert "secret" not in str(raised.value)
