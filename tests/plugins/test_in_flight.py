"""Calls in flight: counted when admitted, released when they end, given up when nobody tells of their end."""

import pytest

from gateway_contract import headers, redis_names
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt
from gateway_contract.records import Concurrency, KeyStatus, Window
from kong_plugins.parts import in_flight
from kong_plugins.parts.limit_script import ADMITTED, CALLS_AT_A_TIME, REFUSED
from kong_plugins.parts.settings import SettingsError
from kong_plugins.parts.spool_writer import METER_FILE_NAME
from kong_plugins.plugins import km_usage_meter
from tests.plugins.conftest import make_call
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, grant

LEASE_US = 30_000_000
TWO = Concurrency(limit=2, lease_ms=LEASE_US // 1000)


def name_of(caller, mode=Mode.LIVE):
    return redis_names.in_flight(caller.account, PRODUCT, mode)


class TestLimitOfCallsInFlight:
    def test_refuses_the_call_beyond_it_for_a_second(self, timed):
        caller = timed(windows=(), concurrency=TWO)
        assert [caller.ask(number)[0] for number in range(3)] == [ADMITTED, ADMITTED, REFUSED]
        hit, remaining, wait_ms = caller.ask(3)[2:]
        limit = caller.question.limits[hit - 1]
        assert (limit.name, limit.limit, limit.quota_unit) == ("concurrent", 2, CALLS_AT_A_TIME)
        assert (limit.outcome, remaining, wait_ms) == (Outcome.RATE_LIMITED, 0, 1000)
        assert limit in caller.question.shown

    def test_is_not_the_tightest_limit_of_admitted_calls(self, timed):
        caller = timed(windows=(Window(50, 10_000),), concurrency=Concurrency(1, 1000))
        assert caller.ask(0)[3:] == [1, 49, 10_000]

    def test_writes_members_that_receipts_repeat(self, timed, client):
        caller = timed(windows=(), concurrency=TWO)
        moment, number = caller.ask(0)[1:3]
        ((member, gives_up_at),) = client.zrange(name_of(caller), 0, -1, withscores=True)
        assert (member.decode(), gives_up_at) == (f"{moment}.{number}", moment + TWO.lease_ms)

    def test_admits_again_when_a_call_has_ended(self, timed, client):
        caller = timed(windows=(), concurrency=TWO)
        moment, number = caller.ask(0)[1:3]
        assert caller.admits(0)
        assert not caller.admits(0)
        client.zrem(name_of(caller), f"{moment}.{number}")
        assert [caller.admits(0) for _ in range(2)] == [True, False]

    def test_gives_calls_up_when_their_lease_ends(self, timed, client):
        caller = timed(windows=(), concurrency=TWO)
        assert [caller.admits(at) for at in (0, 1_000_000, LEASE_US - 1)] == [True, True, False]
        assert [caller.admits(LEASE_US), caller.admits(LEASE_US)] == [True, False]
        assert client.zcard(name_of(caller)) == 2

    def test_leaves_nothing_behind(self, timed, client):
        caller = timed(windows=(), concurrency=TWO)
        caller.ask(0)
        assert 0 < client.pttl(name_of(caller)) <= TWO.lease_ms

    def test_consumes_nothing_else_when_it_refuses_and_nothing_when_others_do(self, timed):
        caller = timed(windows=(Window(3, 10_000),), concurrency=TWO)
        assert [caller.admits(0) for _ in range(2)] == [True, True]
        stored = caller.stored()
        assert not caller.admits(0)
        assert caller.stored() == stored
        full = timed(windows=(Window(1, 10_000),), concurrency=TWO)
        full.ask(0)
        stored = full.stored()
        assert full.ask(0)[2] == 1
        assert full.stored() == stored

    def test_keeps_nobody_out_for_longer_than_a_lease_after_the_clock_stepped_back(self, timed):
        caller = timed(windows=(), concurrency=TWO)
        back_us = 3_000_000_000
        assert [caller.admits(0) for _ in range(3)] == [True, True, False]
        assert not caller.admits(-back_us)
        assert not caller.admits(-back_us + LEASE_US - 1000)
        assert caller.admits(-back_us + LEASE_US)

    def test_counts_modes_apart(self, timed):
        live = timed(windows=(), concurrency=TWO)
        test = timed(windows=(), concurrency=TWO, mode=Mode.TEST)
        assert live.question.keys[-1] == name_of(live)
        assert test.question.keys[-1] == name_of(test, Mode.TEST)


def ended(kong, **changes):
    """Kong's log of a finished request."""
    request, response = (
        {name.lower(): value for name, value in side.items()} for side in (kong.upstream, kong.answer)
    )
    return {
        "request": {
            "id": "530eae6271c91c3492172e39d7ff7171",
            "method": "GET",
            "size": 181,
            "uri": "/v1/items",
            "headers": changes.pop("request", {**kong.headers, **request}),
        },
        "response": {
            "status": changes.pop("status", 200),
            "size": 3,
            "headers": changes.pop("response", response),
        },
        "latencies": {"request": 7, "kong": 6, "proxy": 1, "receive": 0},
        "started_at": 1795392600477,
        "source": "upstream",
        "client_ip": "127.0.0.1",
        **changes,
    }


@pytest.fixture
def meter(monkeypatch, tmp_path, redis_url):
    monkeypatch.setenv("KM_SPOOL_DIR", str(tmp_path))
    monkeypatch.setenv("KM_REDIS_URL", redis_url)
    monkeypatch.setenv("KM_GATEWAY_SECRET", SECRET)
    return km_usage_meter.Plugin({"concurrency": True})


@pytest.fixture
def account(project):
    return project(grant=grant(windows=(), quota=None, concurrency=Concurrency(1, 600_000)))


class TestEndedCall:
    @pytest.mark.parametrize("status", [200, 404, 499, 500, 502, 504])
    def test_makes_room_for_the_next_one_however_it_ended(self, meter, call, account, status):
        served = call(account.text)
        refused = call(account.text)
        assert (served.code, refused.code) == ("served", "rate_limited")
        assert refused.problem["limit"]["name"] == "concurrent"
        assert refused.answer[headers.RETRY_AFTER] == "1"
        meter.log(FakeKong(log=ended(served, status=status)))
        assert [call(account.text).code for _ in range(2)] == ["served", "rate_limited"]

    def test_is_released_by_the_request_where_the_answer_says_nothing(self, meter, call, account):
        meter.log(FakeKong(log=ended(call(account.text), response={})))
        assert call(account.text).served

    def test_is_released_where_the_upstream_sends_a_receipt_of_its_own(self, meter, call, account):
        served = call(account.text)
        both = {headers.RECEIPT.lower(): ["1.forged", served.answer[headers.RECEIPT]]}
        meter.log(FakeKong(log=ended(served, response=both)))
        assert call(account.text).served

    def test_that_was_refused_releases_nothing(self, meter, call, account):
        served = call(account.text)
        meter.log(FakeKong(log=ended(call(account.text))))
        assert call(account.text).code == "rate_limited"
        assert served.served

    def test_that_was_refused_cannot_end_another_one_by_its_receipt(self, meter, call, account):
        """An upstream may show callers the receipt of a call that still runs."""
        served = call(account.text)
        seen = {headers.RECEIPT: served.upstream[headers.RECEIPT]}
        meter.log(
            FakeKong(log=ended(call(None, headers=seen), request={headers.RECEIPT.lower(): seen[headers.RECEIPT]}))
        )
        assert call(account.text).code == "rate_limited"

    def test_writes_its_line_and_asks_kong_once(self, meter, call, account, tmp_path):
        kong = FakeKong(log=ended(call(account.text)))
        meter.log(kong)
        assert kong.names == ["log.serialize"]
        assert len((tmp_path / METER_FILE_NAME).read_text().splitlines()) == 1

    def test_is_released_where_its_line_cannot_be_written(self, meter, call, account, tmp_path):
        (tmp_path / METER_FILE_NAME).mkdir()
        meter.log(FakeKong(log=ended(call(account.text))))
        assert call(account.text).served

    def test_is_left_alone_without_the_option(self, meter, call, account, monkeypatch):
        km_usage_meter.Plugin({}).log(FakeKong(log=ended(call(account.text))))
        assert call(account.text).code == "rate_limited"
        monkeypatch.delenv("KM_GATEWAY_SECRET")
        km_usage_meter.Plugin({})
        with pytest.raises(SettingsError, match="KM_GATEWAY_SECRET"):
            km_usage_meter.Plugin({"concurrency": True})

    def test_twice_is_released_once(self, meter, call, account):
        served = call(account.text)
        for _ in range(2):
            meter.log(FakeKong(log=ended(served)))
        assert [call(account.text).code for _ in range(2)] == ["served", "rate_limited"]

    def test_that_redis_does_not_hear_of_is_counted(self, meter, own_valkey, start_worker, project):
        valkey = own_valkey()
        start_worker(valkey.url)
        kong = FakeKong()
        receipt = Receipt("e", 1, 7, 5, "acc_1", "key_1", PRODUCT, Mode.LIVE, Outcome.SERVED, 1)
        kong.answer[headers.RECEIPT] = sign_receipt(receipt, place=Place.ANSWER, secret=SECRET.encode())
        lost = in_flight._releases["lost"].value
        valkey.kill()
        meter.log(FakeKong(log=ended(kong)))
        assert in_flight._releases["lost"].value == lost + 1

    @pytest.mark.parametrize("value", [None, [], [None, 3], "", "x", "\ud800", "ä.b", {"a": 1}, 7])
    def test_with_an_odd_receipt_releases_nothing(self, value):
        for side in ("request", "response"):
            record = {side: {"headers": {headers.RECEIPT.lower(): value}}}
            assert in_flight.find_admission(record, secrets=(SECRET.encode(),)) is None
        assert in_flight.find_admission({"response": {"headers": value}}, secrets=(SECRET.encode(),)) is None


class TestPlanWithoutSuchALimit:
    def test_puts_nothing_in_flight(self, meter, call, project):
        account = project()
        before = in_flight._releases["not_there"].value
        served = call(account.text)
        assert account.client.exists(redis_names.in_flight("acc_1", PRODUCT, Mode.LIVE)) == 0
        meter.log(FakeKong(log=ended(served)))
        assert in_flight._releases["not_there"].value == before + 1

    def test_keeps_refusing_for_other_reasons(self, call, account):
        account.change_key(status=KeyStatus.REVOKED)
        assert make_call(account.text).code == "key_revoked"
