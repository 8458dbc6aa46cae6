"""What a worker remembers: bounded, and never trusted beyond the moment at which Redis can be asked."""

import gc

import pytest
import redis

from gateway_contract import api_keys
from gateway_contract.modes import Mode
from gateway_contract.records import KeyStatus
from kong_plugins.parts import news
from kong_plugins.parts.record_cache import KnownKey
from tests.plugins.fakes import grant
from tests.plugins.test_redis_trouble import eventually


class TestCutSubscription:
    """Nothing is published here: a change is heard of by the version check alone."""

    @pytest.fixture
    def cut(self, redis_url, worker, monkeypatch):
        """Cuts every subscription off, and keeps the listener away for two seconds."""
        monkeypatch.setattr(news, "RETRY_SECONDS", 2.0)
        worker.start()
        eventually(lambda: worker.news._since is not None)
        with redis.Redis.from_url(redis_url) as client:
            yield lambda: client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def test_lets_no_changed_record_pass(self, project, call, cut):
        account = project(grant=grant(windows=()))
        assert call(account.text).served
        cut()
        account.change_key(status=KeyStatus.REVOKED)
        assert call(account.text).code == "key_revoked"

    def test_takes_up_a_changed_plan(self, project, call, cut):
        account = project(grant=grant(windows=()))
        assert call(account.text).upstream["X-Km-Plan"] == "starter"
        cut()
        account.change_account(products={"weather": grant(windows=(), plan="growth")})
        assert call(account.text).upstream["X-Km-Plan"] == "growth"

    def test_drops_what_was_not_found_when_it_is_back(self, project, call, worker, cut, monkeypatch):
        project().mark_all()
        # a memory that never fades by itself: only the return of the subscription can clear it
        monkeypatch.setattr(worker.cache, "_clock", lambda: 0.0)
        text = api_keys.generate_api_key(Mode.LIVE)
        assert call(text).code == "unknown_key"
        since = worker.news._since
        cut()
        issued = project()
        issued.text, issued.key_hash = text, api_keys.hash_api_key(text)
        issued.write()
        assert call(text).code == "unknown_key"
        eventually(lambda: worker.news._since != since)
        assert call(text).served


class TestBounds:
    def test_hold_for_known_keys(self, project, start_worker, redis_url, call):
        worker = start_worker(redis_url, KM_CACHED_KEYS="100")
        accounts = [project(grant=grant(windows=(), quota=None), account=f"acc_{n}") for n in range(150)]
        for account in accounts:
            assert call(account.text).served
        known = [account for account in accounts if isinstance(worker.cache.knows(account.key_hash), KnownKey)]
        assert 50 <= len(known) <= 100
        assert known[-1] is accounts[-1]
        gc.collect()  # a forgotten key and its callers know each other; with them their account goes
        assert len(worker.cache._accounts) <= 101
        assert call(accounts[0].text).served

    def test_hold_for_keys_that_do_not_exist(self, project, start_worker, redis_url, call):
        worker = start_worker(redis_url, KM_COLD_READS_PER_SECOND="1000000")
        monitored = worker.cache._unknown
        project().mark_all()
        for number in range(25_000):
            monitored.put(f"{number}", 1.0)
        assert len(monitored) <= 10_000
        assert call(api_keys.generate_api_key(Mode.LIVE)).code == "unknown_key"
        assert len(monitored) <= 10_000

    def test_hold_for_ways_in_which_one_key_is_used(self, project, worker, call):
        account = project(grant=grant(windows=(), quota=None))
        for number in range(200):
            assert call(account.text, config={"scopes": [f"s{number}"]}).served
        assert len(worker.cache.knows(account.key_hash).callers) <= 64
