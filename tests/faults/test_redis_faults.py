"""Whatever is wrong with Redis: plans that close refuse, plans that stay open go on, and nothing counts twice."""

import contextlib
import random
import threading
import time
from types import SimpleNamespace

import pytest
import redis

from devstack.soak import fault_causes
from gateway_contract import headers
from gateway_contract.records import RedisDownPolicy, Window
from tests.faults.redis_proxy import RedisProxy
from tests.plugins.conftest import make_call
from tests.plugins.fakes import (
    Projected,
    call_number,
    eventually,
    grant,
)

WIDE = (Window(1_000, 60_000),)


@pytest.fixture
def make_account():
    """An account of the policy, in the Redis at that address."""
    made = []

    def make(url, policy, *, windows=WIDE, name=None):
        made.append(
            Projected(url, account=name or f"acc_{policy.value}", grant=grant(windows=windows, redis_down=policy))
        )
        return made[-1]

    yield make
    for account in made:
        account.close()


@pytest.fixture
def make_proxy():
    made = []

    def make(port):
        made.append(RedisProxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@contextlib.contextmanager
def stopped(valkey):
    valkey.pause()
    try:
        yield
    finally:
        valkey.resume()


FAULTS = {
    "read-only": fault_causes.redis_read_only,
    "out of memory": fault_causes.redis_out_of_memory,
    "password changed": fault_causes.redis_password_changed,
    "stopped": lambda site: stopped(site.valkey),
}


class TestRedisThatDoesNotServe:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_is_closed_to_closed_plans_open_to_open_ones_and_counts_once(
        self, fault, own_valkey, start_worker, make_account
    ):
        valkey = own_valkey()
        start_worker(valkey.url)
        closed, opened = (make_account(valkey.url, policy) for policy in reversed(RedisDownPolicy))
        assert [call_number(make_call(account.text)) for account in (closed, opened)] == [1, 1]
        with FAULTS[fault](SimpleNamespace(redis_url=valkey.url, valkey=valkey)):
            for _ in range(3):
                refused = make_call(closed.text)
                assert (refused.status, refused.code) == (503, "unavailable")
                assert refused.answer[headers.RETRY_AFTER] == "1"
                assert call_number(make_call(opened.text)) == 0
        eventually(lambda: make_call(closed.text).served)
        admitted = closed.counters()["calls"]
        # the first, the one that found Redis again, and where Redis was stopped the one it ran late
        assert admitted == (3 if fault == "stopped" else 2)
        assert closed.counters()["units"] == admitted
        assert call_number(make_call(closed.text)) == admitted + 1


class TestSlowRedis:
    def test_is_waited_for_and_counts_once(self, own_valkey, start_worker, make_account, make_proxy):
        valkey = own_valkey()
        proxy = make_proxy(valkey.port)
        start_worker(proxy.url)
        account = make_account(valkey.url, RedisDownPolicy.CLOSED)
        assert call_number(make_call(account.text)) == 1
        proxy.delay_seconds = 0.3
        began = time.monotonic()
        assert call_number(make_call(account.text)) == 2
        assert time.monotonic() - began >= 0.3

    @pytest.mark.parametrize("policy", RedisDownPolicy)
    def test_that_takes_too_long_is_given_up_and_counts_once(
        self, policy, own_valkey, start_worker, make_account, make_proxy
    ):
        valkey = own_valkey()
        proxy = make_proxy(valkey.port)
        start_worker(proxy.url)
        account = make_account(valkey.url, policy)
        assert make_call(account.text).served
        proxy.delay_seconds = 2.5
        kong = make_call(account.text)
        assert kong.code == ("served" if policy is RedisDownPolicy.OPEN else "unavailable")
        # it ran, though nobody heard of it: admitted, and never to be seen in an event
        assert account.counters()["calls"] == 2


class TestRedisPausedInTheMiddleOfAScriptCall:
    def test_behind_its_answer_has_counted_once(self, own_valkey, start_worker, make_account, make_proxy):
        valkey = own_valkey()
        proxy = make_proxy(valkey.port)
        start_worker(proxy.url)
        account = make_account(valkey.url, RedisDownPolicy.CLOSED)

        def stop_and_keep_the_answer():
            proxy.after_script_answered = None
            valkey.pause()
            time.sleep(2.5)

        proxy.after_script_answered = stop_and_keep_the_answer
        assert make_call(account.text).code == "unavailable"
        valkey.resume()
        assert account.counters() | {"calls": 1, "units": 1} == account.counters()

    def test_at_any_moment_counts_once(self, own_valkey, start_worker, make_account, make_proxy):
        valkey = own_valkey()
        proxy = make_proxy(valkey.port)
        gateway = start_worker(proxy.url)
        account = make_account(valkey.url, RedisDownPolicy.CLOSED)
        assert call_number(make_call(account.text)) == 1

        is_stopped = threading.Event()

        def stop_in_a_moment():
            proxy.after_script_sent = None
            time.sleep(random.uniform(0, 0.0003))
            valkey.pause()
            is_stopped.set()

        for calls in range(2, 5):
            is_stopped.clear()
            proxy.after_script_sent = stop_in_a_moment
            made = make_call(account.text)
            assert is_stopped.wait(10)
            valkey.resume()
            assert made.code in {"served", "unavailable"}
            eventually(lambda calls=calls: account.counters()["calls"] >= calls)
            assert account.counters()["calls"] == account.counters()["units"] == calls
            eventually(lambda: not gateway.link.is_away)


class TestFailover:
    def test_goes_on_at_the_new_primary_with_numbers_and_windows(
        self, own_valkey, start_worker, make_account, make_proxy
    ):
        old, new = own_valkey(), own_valkey()
        proxy = make_proxy(old.port)
        start_worker(proxy.url)
        account = make_account(old.url, RedisDownPolicy.CLOSED, windows=(Window(5, 60_000),))
        with redis.Redis.from_url(new.url) as replica, redis.Redis.from_url(old.url) as primary:
            replica.replicaof("127.0.0.1", old.port)
            assert [call_number(make_call(account.text)) for _ in range(3)] == [1, 2, 3]
            eventually(lambda: replica.info("replication").get("master_link_status") == "up")
            assert primary.wait(1, 10_000) == 1
            replica.replicaof("NO", "ONE")
            proxy.target_port = new.port
            primary.replicaof("127.0.0.1", new.port)
        # connected to the old one still, which has become a replica that takes no writes
        codes = []
        eventually(lambda: codes.append(make_call(account.text)) or codes[-1].served)
        assert {kong.code for kong in codes[:-1]} <= {"unavailable"}
        assert call_number(codes[-1]) == 4
        assert [make_call(account.text).code for _ in range(2)] == ["served", "rate_limited"]


class TestRestartedEmpty:
    @pytest.mark.parametrize("policy", RedisDownPolicy)
    def test_serves_nobody_until_records_are_back(self, policy, own_valkey, start_worker, make_account):
        valkey = own_valkey()
        gateway = start_worker(valkey.url)
        account = make_account(valkey.url, policy)
        assert make_call(account.text).served
        valkey.restart()
        # an open plan goes on until the lost connection has been found again
        kong = make_call(account.text)
        assert kong.code == "unavailable" or (policy is RedisDownPolicy.OPEN and call_number(kong) == 0)
        eventually(lambda: not gateway.link.is_away)
        assert [make_call(account.text).code for _ in range(3)] == ["unavailable"] * 3
        account.write()
        eventually(lambda: make_call(account.text).served)
        assert account.counters()["calls"] == 1
