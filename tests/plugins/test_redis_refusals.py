"""A Redis that is there and refuses: each call is decided by its plan's policy, and nothing is consumed.

Afterwards the gateway goes on by itself.
"""

import contextlib
import shutil
import threading
import time
from functools import partial

import gevent
import pytest
import redis

from gateway_contract.records import RedisDownPolicy, Window
from gateway_contract.redis_names import INVALIDATIONS_CHANNEL, account_versions, slot_of
from kong_plugins.parts import redis_writes
from kong_plugins.parts.news import News
from kong_plugins.parts.redis_endpoint import parse_redis_url
from kong_plugins.plugins import km_key_auth, km_monetize
from tests.certificates import make_certificate
from tests.forwarder import Forwarder
from tests.plugins.conftest import make_call
from tests.plugins.fakes import (
    PRODUCT,
    FakeKong,
    Projected,
    call_number,
    eventually,
    grant,
)

NOT_BY_REDIS = 0


def number_of(account):
    """The call number of one more call, 0 where Redis did not count it."""
    kong = make_call(account.text)
    assert kong.served, kong.code
    return call_number(kong)


within_30_seconds = partial(eventually, seconds=30.0)


@pytest.fixture
def valkey(own_valkey):
    return own_valkey()


@pytest.fixture
def client(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def account(valkey):
    account = Projected(valkey.url)
    yield account
    account.close()


def close_plan(account):
    account.change_account(products={PRODUCT: grant(redis_down=RedisDownPolicy.CLOSED)})


def assert_decided_by_policy(account, *, counted, seconds=30.0):
    """Served without Redis under `open`, refused under `closed`; and Redis has counted nothing."""
    within_30_seconds(lambda: number_of(account) == NOT_BY_REDIS, seconds=seconds)
    assert account.counters()["calls"] == counted


class TestOutOfMemory:
    @pytest.fixture(autouse=True)
    def refusing(self, client):
        client.config_set("maxmemory-policy", "noeviction")

    def test_consumes_nothing_and_ends_by_itself(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        assert number_of(account) == 1
        before = {name: client.dump(name) for name in client.scan_iter()}
        client.config_set("maxmemory", 1)
        assert_decided_by_policy(account, counted=1)
        assert {name: client.dump(name) for name in client.scan_iter()} == before
        client.config_set("maxmemory", 0)
        assert number_of(account) == 2

    def test_refuses_calls_of_closed_plans(self, valkey, account, client, start_worker):
        close_plan(account)
        start_worker(valkey.url)
        assert number_of(account) == 1
        client.config_set("maxmemory", 1)
        assert make_call(account.text).code == "unavailable"
        client.config_set("maxmemory", 0)
        assert number_of(account) == 2

    def test_keeps_no_key_from_being_read(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        client.config_set("maxmemory", 1)
        assert number_of(account) == NOT_BY_REDIS

    def test_frees_nobody_from_a_limit_that_is_used_up(self, valkey, account, client, start_worker):
        account.change_account(products={PRODUCT: grant(windows=(Window(1, 60_000),))})
        start_worker(valkey.url)
        assert number_of(account) == 1
        client.config_set("maxmemory", 1)
        assert make_call(account.text).code == "rate_limited", "a refusal writes nothing"


class TestTooFewReplicas:
    def test_stop_writes_and_consume_nothing(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        assert number_of(account) == 1
        client.config_set("min-replicas-to-write", 1)
        assert_decided_by_policy(account, counted=1)
        client.config_set("min-replicas-to-write", 0)
        assert number_of(account) == 2


class TestNoWritesForLong:
    """Whoever cannot write cannot revoke a key either, however well Redis answers what it is asked."""

    @pytest.fixture(params=[km_monetize, km_key_auth], ids=["km-monetize", "km-key-auth"])
    def code_of(self, request):
        def call(account):
            kong = FakeKong({"apikey": account.text})
            request.param.Plugin({"api_product": PRODUCT}).access(kong)
            return kong.code

        return call

    @pytest.fixture
    def worker(self, valkey, start_worker, monkeypatch):
        monkeypatch.setattr(redis_writes, "PROBE_SECONDS", 0.1)
        worker = start_worker(valkey.url, KM_STALE_MAX_SECONDS="1")
        worker.start()
        within_30_seconds(lambda: worker.news._since is not None)
        return worker

    def test_ends_service_though_news_and_records_are_heard(self, worker, account, client, code_of):
        assert code_of(account) == "served"
        client.config_set("min-replicas-to-write", 1)
        assert code_of(account) == "served"
        within_30_seconds(lambda: code_of(account) == "unavailable")
        for _ in range(3):
            worker.cache.forget_key(account.key_hash)
            assert code_of(account) == "unavailable", "a record read now may be an old one"
        client.config_set("min-replicas-to-write", 0)
        within_30_seconds(lambda: code_of(account) == "served")

    def test_begins_anew_after_a_write(self, worker, account, client, code_of):
        for _ in range(4):
            client.config_set("min-replicas-to-write", 1)
            for _ in range(5):
                assert code_of(account) == "served"
                gevent.sleep(0.1)
            client.config_set("min-replicas-to-write", 0)
            gevent.sleep(0.15)
            assert code_of(account) == "served"

    def test_is_told_apart_by_the_nodes_of_a_cluster(self, own_valkey_cluster, start_worker, code_of, monkeypatch):
        monkeypatch.setattr(redis_writes, "PROBE_SECONDS", 0.1)
        cluster = own_valkey_cluster(replicas=0)
        start_worker(cluster.url, KM_STALE_MAX_SECONDS="1")
        accounts = [Projected(cluster.url, account=f"acc_{number}") for number in range(12)]
        refusing = cluster.primary_of(slot_of(account_versions("acc_0")))
        assert {code_of(account) for account in accounts} == {"served"}
        with redis.Redis.from_url(refusing.url) as client:
            client.config_set("min-replicas-to-write", 1)
        within_30_seconds(lambda: code_of(accounts[0]) == "unavailable")
        on_others = [
            account
            for account in accounts
            if cluster.primary_of(slot_of(account_versions(account.account.id))) is not refusing
        ]
        assert {code_of(account) for account in on_others} == {"served"}
        assert code_of(accounts[0]) == "unavailable", "what others write proves nothing"
        for account in accounts:
            account.close()

    def test_costs_km_key_auth_one_question_in_a_while(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        plugin = km_key_auth.Plugin({"api_product": PRODUCT})
        for _ in range(50):
            plugin.access(FakeKong({"apikey": account.text}))
        assert client.info("commandstats")["cmdstat_hdel"]["calls"] < 10


class TestFailedSnapshot:
    def test_stops_writes_and_consumes_nothing(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        assert number_of(account) == 1
        client.config_set("save", "3600 1")
        shutil.rmtree(valkey.data_dir)
        with contextlib.suppress(redis.ResponseError):
            client.bgsave()
        within_30_seconds(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("x", "y")
        assert_decided_by_policy(account, counted=1)
        client.config_set("stop-writes-on-bgsave-error", "no")
        assert number_of(account) == 2
        client.config_set("save", "")  # nor does it try again at its end


class TestBusy:
    def test_with_another_script_refuses_and_consumes_nothing(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        assert number_of(account) == 1
        client.config_set("busy-reply-threshold", 50)
        busy = threading.Thread(target=self.loop, args=(valkey.url,))
        busy.start()
        within_30_seconds(lambda: number_of(account) == NOT_BY_REDIS)
        close_to_now = time.monotonic()
        assert number_of(account) == NOT_BY_REDIS
        assert time.monotonic() - close_to_now < 5
        client.script_kill()
        busy.join()
        within_30_seconds(lambda: number_of(account) > 0)
        assert account.counters()["calls"] <= 3, "the one before, perhaps one whose answer was lost, the one after"

    @staticmethod
    def loop(url):
        with redis.Redis.from_url(url, socket_timeout=60) as client, contextlib.suppress(redis.RedisError):
            client.eval("while true do end", 0)


class TestCredentials:
    USER = ("on", ">first", "~*", "&*", "+@all")

    @pytest.fixture
    def url(self, valkey, client):
        client.execute_command("ACL SETUSER", "km", *self.USER)
        return f"redis://km:first@127.0.0.1:{valkey.port}/0"

    def test_a_changed_password_is_noticed_at_the_next_connection(self, url, account, client, start_worker):
        start_worker(url)
        assert number_of(account) == 1
        client.execute_command("ACL SETUSER", "km", "resetpass", ">second")
        assert number_of(account) == 2, "a connection that exists goes on"
        client.execute_command("CLIENT KILL", "USER", "km")
        assert_decided_by_policy(account, counted=2)
        client.execute_command("ACL SETUSER", "km", ">first")
        within_30_seconds(lambda: number_of(account) > 0)
        assert account.counters()["calls"] == 3

    def test_a_removed_user_is_locked_out_at_once(self, url, account, client, start_worker):
        start_worker(url)
        assert number_of(account) == 1
        client.execute_command("ACL DELUSER", "km")
        assert_decided_by_policy(account, counted=1)
        client.execute_command("ACL SETUSER", "km", *self.USER)
        within_30_seconds(lambda: number_of(account) > 0)

    def test_a_user_who_may_not_run_scripts_consumes_nothing(self, url, account, client, start_worker):
        start_worker(url)
        assert number_of(account) == 1
        client.execute_command("ACL SETUSER", "km", "-evalsha")
        assert_decided_by_policy(account, counted=1)
        client.execute_command("ACL SETUSER", "km", "+evalsha")
        assert number_of(account) == 2

    def test_a_user_who_may_not_read_records_serves_no_new_key(self, url, account, client, start_worker):
        start_worker(url)
        client.execute_command("ACL SETUSER", "km", "-get")
        assert make_call(account.text).code == "unavailable"
        client.execute_command("ACL SETUSER", "km", "+get")
        assert number_of(account) == 1

    def test_a_user_who_may_not_subscribe_hears_nothing_and_vouches_for_nothing(
        self, url, account, client, start_worker
    ):
        client.execute_command("ACL SETUSER", "km", "resetchannels")
        worker = start_worker(url)
        news = News(lambda: parse_redis_url(url), worker.cache)
        news.start()
        gevent.sleep(0.3)
        assert news.confirm(1.0) == 1.0
        assert number_of(account) == 1
        client.execute_command("ACL SETUSER", "km", "&*")
        within_30_seconds(lambda: news.confirm(time.monotonic()) and news._since is not None)
        news.stop()

    def test_a_password_that_is_asked_for_later_is_noticed(self, valkey, account, client, start_worker):
        start_worker(valkey.url)
        assert number_of(account) == 1
        client.config_set("requirepass", "later")
        client.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
        kong = make_call(account.text)
        assert kong.served
        client.config_set("requirepass", "")
        within_30_seconds(lambda: number_of(account) > 0)


class TestTakenOverByAReplica:
    """One address, behind which another server answers after a failover."""

    def test_the_old_primary_is_left_as_soon_as_it_says_that_it_is_a_replica(self, own_valkey, start_worker):
        old, new = own_valkey(), own_valkey()
        with (
            Forwarder(old.port) as address,
            redis.Redis.from_url(old.url) as old_client,
            redis.Redis.from_url(new.url) as new_client,
        ):
            follow(new_client, old)
            account = Projected(old.url)
            start_worker(f"redis://127.0.0.1:{address.port}/0")
            assert number_of(account) == 1
            old_client.wait(1, 5_000)
            # the switch: connections that exist stay with the old one
            new_client.replicaof("NO", "ONE")
            follow(old_client, new)
            assert number_of(account) == NOT_BY_REDIS, "refused by the replica: decided by the policy"
            address.target_port = new.port
            within_30_seconds(lambda: number_of(account) == 2)
            assert address.opened >= 2
            account.close()

    def test_news_are_listened_to_where_the_calls_go(self, own_valkey, start_worker):
        old, new = own_valkey(), own_valkey()
        with Forwarder(old.port) as address:
            account = Projected(old.url)
            worker = start_worker(f"redis://127.0.0.1:{address.port}/0")
            worker.start()
            assert number_of(account) == 1
            within_30_seconds(lambda: listeners(old) == 1)
            with redis.Redis.from_url(old.url) as client:
                client.replicaof("127.0.0.1", str(new.port))
                address.target_port = new.port
                within_30_seconds(lambda: make_call(account.text) and listeners(new) == 1)
                assert listeners(old) == 0
            account.close()

    def test_an_address_that_still_names_the_replica_is_asked_until_it_does_not(self, own_valkey, start_worker):
        old, new = own_valkey(), own_valkey()
        with Forwarder(old.port) as address, redis.Redis.from_url(old.url) as old_client:
            account = Projected(old.url)
            start_worker(f"redis://127.0.0.1:{address.port}/0")
            assert number_of(account) == 1
            with redis.Redis.from_url(new.url) as new_client:
                follow(new_client, old)
                new_client.replicaof("NO", "ONE")
            follow(old_client, new)
            for _ in range(3):
                assert number_of(account) == NOT_BY_REDIS
                gevent.sleep(0.05)
            old_client.replicaof("NO", "ONE")
            within_30_seconds(lambda: number_of(account) == 2)
            account.close()


def listeners(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        return client.pubsub_numsub(INVALIDATIONS_CHANNEL)[0][1]


def follow(client, primary):
    """Make the client's server a replica, and wait until it has its primary's data."""
    client.replicaof("127.0.0.1", str(primary.port))
    within_30_seconds(lambda: client.role()[3] == b"connected")


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path):
        return make_certificate(tmp_path, "redis")

    def test_is_spoken_where_the_url_says_so(self, valkey, account, certificate, start_worker):
        context, trusted = certificate
        with Forwarder(valkey.port, tls=context) as address:
            worker = start_worker(f"rediss://127.0.0.1:{address.port}/0?ssl_ca_certs={trusted}")
            worker.start()
            within_30_seconds(lambda: worker.news._since is not None)
            began = time.monotonic()
            assert [number_of(account) for _ in range(3)] == [1, 2, 3]
            assert time.monotonic() - began < 10, "listening for news holds up no call"
            jobs = [gevent.spawn(number_of, account) for _ in range(5)]
            gevent.joinall(jobs, raise_error=True)
            assert sorted(job.value for job in jobs) == [4, 5, 6, 7, 8]
            address.cut()
            within_30_seconds(lambda: number_of(account) > 8)

    def test_with_a_stranger_is_not_spoken(self, valkey, account, certificate, tmp_path, start_worker):
        _, trusted = certificate
        stranger, _ = make_certificate(tmp_path, "stranger")
        with Forwarder(valkey.port, tls=stranger) as address:
            start_worker(f"rediss://127.0.0.1:{address.port}/0?ssl_ca_certs={trusted}")
            assert make_call(account.text).code == "unavailable"

    def test_reaches_every_node_of_a_cluster(self, own_valkey_cluster, certificate, start_worker):
        context, trusted = certificate
        cluster = own_valkey_cluster(replicas=0)
        with contextlib.ExitStack() as leaving:
            addresses = [leaving.enter_context(Forwarder(node.port, tls=context)) for node in cluster.nodes]
            accounts = [Projected(cluster.url, account=f"acc_{number}") for number in range(12)]
            for node, address in zip(cluster.nodes, addresses, strict=True):
                with redis.Redis.from_url(node.url) as client:
                    client.config_set("cluster-announce-port", address.port)
            within_30_seconds(lambda: all(announces(node, addresses) for node in cluster.nodes))
            start_worker(f"rediss+cluster://127.0.0.1:{addresses[0].port}?ssl_ca_certs={trusted}")
            assert [number_of(account) for account in accounts] == [1] * 12
            assert all(address.opened for address in addresses)
            for account in accounts:
                account.close()


def announces(node, addresses):
    with redis.Redis.from_url(node.url) as client:
        client.set_response_callback("CLUSTER SLOTS", lambda answer, **_: answer)
        ports = {nodes[0][1] for _, _, *nodes in client.execute_command("CLUSTER SLOTS")}
    return ports == {address.port for address in addresses}
