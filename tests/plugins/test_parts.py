"""The small parts: settings, configuration, receipts, local windows, bounded map."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_contract import plugins as contract
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt, verify_receipt
from gateway_contract.records import Window
from kong_plugins.parts import worker as worker_module
from kong_plugins.parts.attachment import attach
from kong_plugins.parts.bounded_map import BoundedMap
from kong_plugins.parts.limit_script import Limit, narrowest_windows, window_name
from kong_plugins.parts.local_windows import LocalWindows
from kong_plugins.parts.plugin_config import ConfigError, read_access_config, read_meter_config
from kong_plugins.parts.receipt_signer import ReceiptSigner, receipt_tail
from kong_plugins.parts.redis_connection import encode_command
from kong_plugins.parts.redis_endpoint import RedisEndpoint, RedisUrlError, parse_redis_url
from kong_plugins.parts.settings import SettingsError, read_settings
from kong_plugins.plugins import km_key_auth, km_monetize, km_plan_limit, km_usage_meter
from tests.plugins.fakes import SECRET

GOOD = {"KM_REDIS_URL": "redis://u:pa55word@127.0.0.1:6390/3", "KM_GATEWAY_SECRET": SECRET}


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("KM_REDIS_URL", ""),
            ("KM_REDIS_URL", "http://pa55word@example.com"),
            ("KM_REDIS_URL", "redis://:pa55word@127.0.0.1:port"),
            ("KM_GATEWAY_SECRET", ""),
            ("KM_GATEWAY_SECRET", "pa55word"),
            ("KM_STALE_MAX_SECONDS", "pa55word"),
            ("KM_STALE_MAX_SECONDS", "nan"),
            ("KM_STALE_MAX_SECONDS", "-1"),
            ("KM_CACHED_KEYS", "1"),
            ("KM_SPOOL_RESERVE_MB", "pa55word"),
            ("KM_SPOOL_FULL", "pa55word"),
        ],
    )
    def test_name_the_wrong_variable_and_never_show_it(self, name, value):
        with pytest.raises(SettingsError, match=f"^{name}") as caught:
            read_settings({**GOOD, name: value})
        assert "pa55word" not in f"{caught.value!r} {caught.value.__cause__!r}"

    def test_show_no_secret_when_printed(self):
        shown = repr(read_settings(GOOD))
        assert SECRET not in shown
        assert "pa55word" not in shown

    def test_take_the_first_secret_to_sign_and_all_to_verify(self):
        settings = read_settings({**GOOD, "KM_GATEWAY_SECRET": f"{SECRET}1,{SECRET}2"})
        assert settings.secrets == (f"{SECRET}1".encode(), f"{SECRET}2".encode())


class TestRedisUrl:
    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("redis://localhost", RedisEndpoint(host="localhost")),
            ("redis://h:1/2", RedisEndpoint(host="h", port=1, database=2)),
            ("redis://u:p%40s@h", RedisEndpoint(host="h", username="u", password="p@s")),
            ("rediss://h?ssl_ca_certs=/ca.pem&db=4", RedisEndpoint("h", tls=True, ca_file="/ca.pem", database=4)),
            ("unix:///run/redis.sock?db=1", RedisEndpoint(path="/run/redis.sock", database=1)),
        ],
    )
    def test_is_read(self, url, endpoint):
        assert parse_redis_url(url) == endpoint

    @pytest.mark.parametrize("url", ["", "localhost:6379", "redis://h/x", "redis://h:99999"])
    def test_of_another_form_is_refused(self, url):
        with pytest.raises(RedisUrlError):
            parse_redis_url(url)


class TestConfig:
    def test_has_defaults_for_what_kong_leaves_null(self):
        config = read_access_config(
            {"api_product": "weather", "key_headers": None, "bearer": None, "sandbox_upstream": None, "__seq__": 8}
        )
        assert config == read_access_config({"api_product": "weather"})
        assert (config.key_headers, config.bearer, config.hide_key) == (("apikey", "x-api-key"), True, True)

    def test_takes_an_empty_list_as_lua_writes_it(self):
        assert read_access_config({"api_product": "weather", "key_headers": {}}).key_headers == ()

    @pytest.mark.parametrize(
        ("config", "field"),
        [
            ({}, "api_product"),
            (None, "api_product"),
            ({"api_product": 3}, "api_product"),
            ({"api_product": "w", "key_headers": "apikey"}, "key_headers"),
            ({"api_product": "w", "bearer": "yes"}, "bearer"),
            ({"api_product": "w", "entitlement": 1}, "entitlement"),
        ],
    )
    def test_of_the_wrong_kind_is_refused_by_name(self, config, field):
        with pytest.raises(ConfigError, match=field):
            read_access_config(config)

    @pytest.mark.parametrize("config", [{"unit_headers": ["x"]}, {"unit_headers": {"tokens": 1}}])
    def test_of_the_meter_too(self, config):
        with pytest.raises(ConfigError, match="unit_headers"):
            read_meter_config(config)

    def test_that_is_equal_shares_one_attachment(self):
        first, second = (attach(read_access_config({"api_product": "weather"})) for _ in range(2))
        assert first is second
        assert attach(read_access_config({"api_product": "other"})) is not first


class TestPluginModules:
    @pytest.mark.parametrize(
        ("module", "name", "phases"),
        [
            (km_monetize, contract.MONETIZE, {"access"}),
            (km_key_auth, contract.KEY_AUTH, {"access"}),
            (km_plan_limit, contract.PLAN_LIMIT, {"access"}),
            (km_usage_meter, contract.USAGE_METER, {"log"}),
        ],
    )
    def test_keep_the_conventions(self, module, name, phases):
        assert module.priority == contract.PRIORITIES[name]
        assert module.version
        assert {phase for phase in ("access", "log", "response") if hasattr(module.Plugin, phase)} == phases
        assert all(len(field) == 1 for field in module.Schema)
        for field in module.Schema:
            for rules in field.values():
                assert 10 <= len(rules["description"]) <= 500  # what Kong's own schema of schemas allows


class TestReceiptSigner:
    @given(
        secret=st.binary(min_size=32, max_size=200),
        call_number=st.integers(0, 2**60),
        moment=st.integers(0, 2**45),
        units=st.integers(0, 10**6),
    )
    def test_signs_the_very_bytes_of_the_contract(self, secret, call_number, moment, units):
        signer = ReceiptSigner(secret)
        whose = {"account_id": "acc_1", "key_id": "key_1", "product": "weather", "mode": Mode.LIVE}
        tail = receipt_tail(**whose, outcome=Outcome.SERVED, units=units)
        upstream, answer = signer.sign_both(call_number=call_number, decided_at_ms=moment, tail=tail)
        refused = signer.sign_answer(decided_at_ms=moment, tail=tail)
        receipt = Receipt(signer.emitter, 1, call_number, moment, **whose, outcome=Outcome.SERVED, units=units)
        assert upstream == sign_receipt(receipt, place=Place.UPSTREAM, secret=secret)
        assert answer == sign_receipt(receipt, place=Place.ANSWER, secret=secret)
        assert verify_receipt(refused, place=Place.ANSWER, secrets=(secret,)).sequence == 2

    def test_draws_another_emitter_for_each_process(self):
        emitters = {ReceiptSigner(b"x" * 32).emitter for _ in range(50)}
        assert len(emitters) == 50
        assert all(len(emitter) == 12 for emitter in emitters)

    def test_of_a_forked_child_is_not_its_parents(self, monkeypatch):
        for name, value in GOOD.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delattr(worker_module._slot, "worker", raising=False)
        parents = worker_module.current_worker().signer.emitter
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write_end, worker_module.current_worker().signer.emitter.encode())
            os._exit(0)
        os.close(write_end)
        childs = os.read(read_end, 100).decode()
        os.close(read_end)
        os.waitpid(child, 0)
        assert len(childs) == len(parents)
        assert childs != parents
        worker_module.stop_worker()


class TestLocalWindows:
    @given(
        limits=st.lists(st.integers(1, 130), min_size=1, max_size=2),
        steps=st.lists(st.integers(0, 3_000), max_size=80),
        repeat=st.integers(1, 20),
    )
    def test_never_admit_more_than_the_limit_in_any_interval(self, limits, steps, repeat):
        lengths = (10_000, 60_000)
        windows = [(f"w{n}", Limit("w", limit, lengths[n])) for n, limit in enumerate(limits)]
        local, admitted, now = LocalWindows(), [], 0
        for step in steps:
            now += step
            admitted += [now for _ in range(repeat) if local.take(windows, now_ms=now) is None]
        for _, limit in windows:
            for moment in admitted:
                assert sum(1 for at in admitted if moment - limit.window_ms < at <= moment) <= limit.limit

    @pytest.mark.parametrize("limit", [1, 60, 100, 101, 300])
    def test_never_refuse_an_even_pace_at_95_percent(self, limit):
        local, window = LocalWindows(), Limit("w", limit, 60_000)
        pause_ms = 60_000 / (limit * 0.95)
        moments = (int(-(-n * pause_ms // 1)) for n in range(limit * 3))
        assert all(local.take([("w", window)], now_ms=moment) is None for moment in moments)

    @pytest.mark.parametrize("limit", [2, 150])
    def test_say_how_long_to_wait(self, limit):
        local, window = LocalWindows(), Limit("w", limit, 60_000)
        assert all(local.take([("w", window)], now_ms=0) is None for _ in range(limit))
        hit, wait_ms = local.take([("w", window)], now_ms=5)
        assert hit is window
        assert local.take([("w", window)], now_ms=5 + wait_ms) is None


class TestBoundedMap:
    def test_forgets_what_was_not_used(self):
        entries = BoundedMap(10)
        for number in range(100):
            entries.put(number, str(number))
            assert entries.get(0) == "0"
        assert len(entries) <= 11
        assert entries.get(50) is None
        assert entries.get(99) == "99"

    def test_forgets_what_it_is_told_to(self):
        entries = BoundedMap(10)
        entries.put("a", 1)
        entries.pop("a")
        entries.pop("a")
        assert entries.get("a") is None


class TestWindows:
    def test_of_one_length_become_the_narrowest(self):
        windows = (Window(10, 1000), Window(5, 1000), Window(7, 2000))
        assert narrowest_windows(windows) == [Window(5, 1000), Window(7, 2000)]

    @pytest.mark.parametrize(
        ("window_ms", "name"),
        [
            (1000, "per-second"),
            (60_000, "per-minute"),
            (86_400_000, "per-day"),
            (30_000, "per-30s"),
            (250, "per-250ms"),
        ],
    )
    def test_have_names(self, window_ms, name):
        assert window_name(window_ms) == name


class TestEncodeCommand:
    def test_counts_bytes_not_characters(self):
        assert (
            encode_command("SET", "ä", 7, b"\xff")
            == b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n7\r\n$1\r\n\xff\r\n"
        )
