"""What holds when records change, when Redis is emptied, killed, paused or restarted."""

import time

import gevent
import pytest

from gateway_contract import headers, redis_names
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import parse_refusal_note
from gateway_contract.records import KeyStatus, RedisDownPolicy, Window
from kong_plugins.parts import redis_link
from kong_plugins.parts.redis_connection import RedisRefusedError, ReplyLostError, encode_command
from kong_plugins.parts.redis_link import RedisLink
from tests.plugins.conftest import make_call
from tests.plugins.fakes import (
    PRODUCT,
    Projected,
    call_number,
    eventually,
    grant,
)


@pytest.fixture
def own(own_valkey):
    """A Valkey to be mistreated, with one account in it."""
    valkey = own_valkey()
    account = Projected(valkey.url)
    yield valkey, account
    account.close()


class TestRevokedKey:
    def test_is_refused_at_its_next_call_with_a_warm_cache(self, project, call, worker):
        account = project()
        assert call(account.text).served
        assert worker.cache.knows(account.key_hash) is not None
        account.change_key(status=KeyStatus.REVOKED)
        assert call(account.text).code == "key_revoked"

    def test_is_refused_on_every_node(self, project, start_worker, redis_url):
        account = project()
        nodes = [start_worker(redis_url) for _ in range(3)]
        for node in nodes:
            node.cache.read(account.key_hash)
        account.change_key(status=KeyStatus.REVOKED)
        for _ in nodes:
            assert make_call(account.text).code == "key_revoked"


class TestChangedPlan:
    def test_holds_from_the_next_call_on(self, project, call):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        assert [call(account.text).code for _ in range(2)] == ["served", "rate_limited"]
        account.change_account(products={PRODUCT: grant(windows=(Window(3, 60_000),))})
        assert [call(account.text).code for _ in range(3)] == ["served", "served", "rate_limited"]

    def test_holds_for_every_key_of_the_account(self, project, call):
        first, second = project(), project()
        assert call(first.text).served
        assert call(second.text).served
        first.change_account(products={})
        second.account = first.account
        assert [call(account.text).code for account in (first, second)] == ["not_subscribed"] * 2


class TestNews:
    def test_of_a_changed_record_drops_it_from_the_cache(self, project, worker):
        account = project()
        worker.start()
        eventually(lambda: worker.news._since is not None)
        worker.cache.read(account.key_hash)
        account.client.publish(redis_names.INVALIDATIONS_CHANNEL, f"key:{account.key_hash}")
        eventually(lambda: worker.cache.knows(account.key_hash) is None)

    def test_of_a_changed_account_has_it_read_again(self, project, worker):
        account = project()
        worker.start()
        eventually(lambda: worker.news._since is not None)
        known = worker.cache.read(account.key_hash)
        account.client.publish(redis_names.INVALIDATIONS_CHANNEL, "what:ever")
        account.client.publish(redis_names.INVALIDATIONS_CHANNEL, "account:acc_1")
        eventually(lambda: known.account.replaced)
        assert make_call(account.text).served


class TestEmptiedRedis:
    def test_is_not_taken_for_unknown_keys(self, project, call):
        account = project()
        assert call(account.text).served
        account.client.flushall()
        kong = call(account.text)
        assert (kong.status, kong.code) == (503, "unavailable")
        assert kong.answer[headers.RETRY_AFTER] == "1"
        assert parse_refusal_note(kong.answer[headers.RECEIPT]) is Outcome.UNAVAILABLE
        account.write()
        assert call(account.text).served

    def test_is_not_taken_for_unknown_keys_with_a_cold_cache(self, project, call):
        account = project()
        account.client.flushall()
        assert call(account.text).code == "unavailable"
        account.write()
        assert call(account.text).served

    def test_half_refilled_serves_whom_it_knows_and_refuses_nobody_as_unknown(self, project, call):
        known, missing = project(), project(account="acc_2")
        missing.client.flushall()
        known.write()
        known.client.delete(*map(redis_names.projection_marker, redis_names.KEY_BUCKETS))
        assert call(known.text).served
        assert call(missing.text).code == "unavailable"

    def test_versions_that_come_late_delay_nobody_for_long(self, project, call):
        account = project()
        account.client.delete(redis_names.account_versions("acc_1"))
        assert call(account.text).code == "unavailable"
        account.write()
        assert call(account.text).served

    def test_a_lost_account_record_is_not_the_callers_fault(self, project, call):
        account = project()
        account.client.delete(redis_names.account_record("acc_1"))
        assert call(account.text).code == "unavailable"

    @pytest.mark.parametrize("text", ["", "{}", "not json", "[]"])
    def test_neither_is_an_unreadable_one(self, project, call, text):
        account = project()
        account.client.set(redis_names.account_record("acc_1"), text)
        assert call(account.text).code == "unavailable"

    def test_a_flushed_script_is_loaded_again(self, project, call):
        account = project()
        assert call(account.text).served
        account.client.script_flush()
        assert call_number(call(account.text)) == 2


class TestKilledRedis:
    def test_known_keys_go_on_until_their_records_are_too_old(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url, KM_STALE_MAX_SECONDS="2")
        assert make_call(account.text).served
        confirmed_at = time.monotonic()
        valkey.kill()
        kong = make_call(account.text)
        assert kong.served
        assert call_number(kong) == 0
        assert headers.LIMIT not in kong.answer
        eventually(lambda: make_call(account.text).code == "unavailable")
        assert time.monotonic() - confirmed_at >= 2

    def test_unknown_keys_do_not(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        valkey.kill()
        assert make_call(account.text).code == "unavailable"

    def test_a_subscription_alive_until_then_keeps_idle_keys_known(self, own, start_worker):
        valkey, account = own
        worker = start_worker(valkey.url, KM_STALE_MAX_SECONDS="3")
        worker.start()
        eventually(lambda: worker.news._since is not None)
        gevent.sleep(0.1)
        assert make_call(account.text).served
        gevent.sleep(3.5)
        valkey.kill()
        assert make_call(account.text).served

    def test_local_windows_hold(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        account.change_account(products={PRODUCT: grant(windows=(Window(3, 60_000), Window(200, 120_000)))})
        assert make_call(account.text).served
        valkey.kill()
        assert [make_call(account.text).code for _ in range(4)] == ["served"] * 3 + ["rate_limited"]
        kong = make_call(account.text)
        assert kong.problem["limit"]["name"] == "per-minute"
        assert int(kong.answer[headers.RETRY_AFTER]) > 50

    def test_a_closed_plan_is_refused(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        account.change_account(products={PRODUCT: grant(redis_down=RedisDownPolicy.CLOSED)})
        assert make_call(account.text).served
        valkey.kill()
        kong = make_call(account.text)
        assert (kong.status, kong.code) == (503, "unavailable")

    def test_a_revoked_key_stays_refused(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        account.change_key(status=KeyStatus.REVOKED)
        assert make_call(account.text).code == "key_revoked"
        valkey.kill()
        time.sleep(1.1)  # beyond the time in which nobody looks again
        assert make_call(account.text).code == "key_revoked"

    def test_is_found_again_after_a_restart(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        assert make_call(account.text).served
        valkey.kill()
        assert make_call(account.text).served
        valkey.restart()
        account.write()
        eventually(lambda: call_number(make_call(account.text)) > 0)

    def test_a_restart_between_calls_is_noticed_before_anything_is_sent(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        assert call_number(make_call(account.text)) == 1
        valkey.restart()
        account.write()
        gevent.sleep(0.1)
        assert call_number(make_call(account.text)) == 1


class TestPausedRedis:
    def test_never_consumes_twice_for_one_call(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        assert make_call(account.text).served
        valkey.pause()
        try:
            began = time.monotonic()
            kong = make_call(account.text)
            assert kong.served
            assert call_number(kong) == 0
            assert time.monotonic() - began < 5
            began = time.monotonic()
            assert make_call(account.text).served
            assert time.monotonic() - began < 0.5, "who comes later does not wait for a dead Redis"
        finally:
            valkey.resume()
        eventually(lambda: call_number(make_call(account.text)) > 0)
        counters = account.counters()
        numbered = counters["calls"]
        # the first, the one whose answer was lost (it ran once), and the one that found Redis again
        assert numbered == 3
        assert counters["units"] == 3

    def test_a_closed_plan_is_refused_in_time(self, own, start_worker):
        valkey, account = own
        start_worker(valkey.url)
        account.change_account(products={PRODUCT: grant(redis_down=RedisDownPolicy.CLOSED)})
        assert make_call(account.text).served
        valkey.pause()
        try:
            assert make_call(account.text).code == "unavailable"
        finally:
            valkey.resume()


class TestConcurrentCalls:
    def test_admit_exactly_the_limit(self, project, worker):
        account = project(grant=grant(windows=(Window(20, 60_000),)))
        jobs = [gevent.spawn(make_call, account.text) for _ in range(32)]
        gevent.joinall(jobs, raise_error=True)
        codes = sorted(job.value.code for job in jobs)
        assert codes == ["rate_limited"] * 12 + ["served"] * 20
        numbers = sorted(call_number(job.value) for job in jobs if job.value.served)
        assert numbers == list(range(1, 21))

    def test_of_a_new_key_read_its_record_once(self, project, worker, monkeypatch):
        account = project()
        reads = []
        original = worker.cache._read
        monkeypatch.setattr(worker.cache, "_read", lambda key_hash: reads.append(key_hash) or original(key_hash))
        jobs = [gevent.spawn(make_call, account.text) for _ in range(10)]
        gevent.joinall(jobs, raise_error=True)
        assert all(job.value.served for job in jobs)
        assert reads == [account.key_hash]

    def test_share_batches(self, project, worker):
        account = project(grant=grant(windows=(), quota=None))
        make_call(account.text)
        before = redis_link._batches.value
        jobs = [gevent.spawn(make_call, account.text) for _ in range(32)]
        gevent.joinall(jobs, raise_error=True)
        assert redis_link._batches.value - before <= 3
        assert sorted(call_number(job.value) for job in jobs) == list(range(2, 34))


class TestLink:
    ECHO = encode_command("ECHO", "x")

    @pytest.fixture
    def link(self, redis_url, worker):
        link = RedisLink(worker.settings.redis)
        yield link
        link.close()

    def test_goes_on_when_a_greenlet_is_ended_while_it_waits(self, link):
        link.ask_one(self.ECHO)
        leader = gevent.spawn(link.ask_one, encode_command("BLPOP", "nothing", "0.3"))
        gevent.sleep(0.05)
        followers = [gevent.spawn(link.ask_one, self.ECHO) for _ in range(3)]
        gevent.sleep(0.05)
        leader.kill()
        gevent.joinall(followers, timeout=10, raise_error=True)
        assert [job.value for job in followers] == [b"x"] * 3

    def test_sends_large_commands_piece_by_piece(self, link):
        text = "x" * 8_000_000
        jobs = [gevent.spawn(link.ask_one, encode_command("ECHO", text)) for _ in range(3)]
        gevent.joinall(jobs, timeout=20, raise_error=True)
        assert all(job.value == text.encode() for job in jobs)

    def test_tells_an_error_from_a_reply(self, link):
        with pytest.raises(RedisRefusedError, match="wrong number"):
            link.ask_one(encode_command("GET"))
        with pytest.raises(RedisRefusedError):
            link.ask([self.ECHO, encode_command("GET")])
        assert link.ask([self.ECHO, self.ECHO]) == [b"x", b"x"]

    def test_fails_all_of_a_batch_whose_answers_are_lost(self, link):
        link.ask_one(self.ECHO)
        leader = gevent.spawn(link.ask_one, encode_command("BLPOP", "nothing", "0.3"))
        gevent.sleep(0.05)
        batch = [gevent.spawn(link.ask_one, self.ECHO) for _ in range(3)]
        gevent.sleep(0.05)
        link._connection._socket.shutdown(2)
        gevent.joinall([leader, *batch], timeout=10)
        assert isinstance(leader.exception, ReplyLostError)
        assert all(job.exception is not None for job in batch)
        eventually(lambda: not link.is_away)
        assert link.ask_one(self.ECHO) == b"x"


class TestModes:
    def test_of_one_account_are_kept_apart_in_redis(self, project):
        account = project()
        assert account.counters(Mode.TEST) == {}
