"""Clocks that jump: Redis' own, by a preloaded library, and the wall clock of the worker's process."""

import importlib.util
import os
import time
from pathlib import Path

import pytest
import redis

from devstack.children import start_child
from devstack.ports import free_port, is_listening
from devstack.stores.binaries import valkey_server
from gateway_contract import headers
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from gateway_contract.records import Period, Window
from tests.plugins.conftest import make_call
from tests.plugins.fakes import HOUR_MS, SECRET, Projected, grant, now_ms

DAY_MS = 24 * HOUR_MS


class JumpingValkey:
    """A Valkey whose clock runs ahead of, or behind, everybody else's."""

    def __init__(self, directory: Path) -> None:
        self._ahead = directory / "ahead"
        self._set(0)
        port = free_port()
        spec = importlib.util.find_spec("libfaketime")
        library = Path(spec.submodule_search_locations[0]) / "vendor/libfaketime/src/libfaketime.so.1"
        self._child = start_child(
            [str(valkey_server()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--daemonize", "no"],
            env={
                "PATH": os.defpath,
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(self._ahead),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
            cwd=directory,
            log_path=directory / "valkey.log",
        )
        self._child.wait_until(lambda: is_listening(port))
        self.url = f"redis://127.0.0.1:{port}/0"

    def jump(self, seconds: int) -> None:
        """From now on its clock, as scripts see it, is so far from the true one."""
        self._set(seconds)
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(self.url) as client:
            while abs(int(client.eval("return redis.call('TIME')", 0)[0]) - time.time() - seconds) > 10:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def _set(self, seconds: int) -> None:
        replacement = self._ahead.with_suffix(".new")
        replacement.write_text(f"{seconds:+d}\n")
        replacement.replace(self._ahead)

    def stop(self) -> None:
        self._child.stop()


@pytest.fixture
def valkey(tmp_path):
    server = JumpingValkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def make_account(valkey):
    """Two calls in a window; the billing period is wide around all jumps."""
    made = []

    def make(window_ms):
        start = now_ms() - 30 * DAY_MS
        periods = (Period(start, start + 60 * DAY_MS), Period(start + 60 * DAY_MS, start + 120 * DAY_MS))
        terms = grant(windows=(Window(2, window_ms),), quota=None, periods=periods)
        made.append(Projected(valkey.url, grant=terms))
        return made[-1]

    yield make
    for account in made:
        account.close()


def decided_ms(kong):
    text = kong.answer[headers.RECEIPT]
    return verify_receipt(text, place=Place.ANSWER, secrets=parse_secrets(SECRET)).decided_at_ms


def codes(account, count):
    return [make_call(account.text).code for _ in range(count)]


class TestRedisClock:
    def test_set_forward_ends_windows_early_and_is_the_time_of_calls(self, valkey, make_account, start_worker):
        account = make_account(60_000)
        start_worker(valkey.url)
        assert codes(account, 3) == ["served", "served", "rate_limited"]
        valkey.jump(3600)
        kong = make_call(account.text)
        assert kong.code == "served"
        assert abs(decided_ms(kong) - now_ms() - HOUR_MS) < 10_000
        assert codes(account, 2) == ["served", "rate_limited"]
        assert account.counters()["calls"] == 4

    def test_set_back_admits_nothing_more_and_opens_again_within_a_window(
        self, valkey, make_account, start_worker
    ):
        account = make_account(4_000)
        start_worker(valkey.url)
        assert codes(account, 3) == ["served", "served", "rate_limited"]
        valkey.jump(-3600)
        jumped_at = time.monotonic()
        assert codes(account, 1) == ["rate_limited"]
        while not make_call(account.text).served:
            assert time.monotonic() - jumped_at < 20
            time.sleep(0.05)
        assert time.monotonic() - jumped_at >= 3.9, "what was admitted before the jump counts on"


class TestWallClockOfTheWorker:
    @pytest.mark.parametrize("days", [-1, 1])
    def test_decides_nothing(self, redis_url, project, start_worker, monkeypatch, days):
        account = project(expires_at_ms=now_ms() + 600_000)
        start_worker(redis_url)
        true_time = time.time
        assert make_call(account.text).served
        monkeypatch.setattr(time, "time", lambda: true_time() + days * 86_400)
        kong = make_call(account.text)
        assert kong.served
        assert abs(decided_ms(kong) - true_time() * 1000) < 10_000

    @pytest.mark.parametrize("days", [-1, 1])
    def test_decides_nothing_while_redis_is_away_either(self, own_valkey, start_worker, monkeypatch, days):
        valkey = own_valkey()
        account = Projected(valkey.url, expires_at_ms=now_ms() + 600_000)
        start_worker(valkey.url)
        true_time = time.time
        assert make_call(account.text).served
        valkey.kill()
        monkeypatch.setattr(time, "time", lambda: true_time() + days * 86_400)
        kong = make_call(account.text)
        assert kong.served
        assert abs(decided_ms(kong) - true_time() * 1000) < 10_000
        account.close()
