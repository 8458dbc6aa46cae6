"""Caps and limits as callers meet them: at a route, and while Redis is away."""

import pytest

from gateway_contract import headers
from gateway_contract.modes import Mode
from gateway_contract.records import Concurrency, MeterPrice, PriceStep, Quota, SpendCap, Window
from kong_plugins.parts import gate
from tests.plugins.conftest import make_call
from tests.plugins.fakes import PRODUCT, grant

TOKENS = MeterPrice("tokens", (PriceStep(0, 0, 1_000_000),))
CAP = SpendCap(2000, "usd", usage_minor=20, prices=(TOKENS,), reserves={"forecast": {"tokens": 10}})


def limited(**changes):
    return grant(**{"windows": (), "quota": None, **changes})


class TestSpendCapAtTheGate:
    def test_refuses_and_names_itself(self, call, project):
        account = project(grant=limited(spend_cap=CAP))
        answers = [call(account.text) for _ in range(3)]
        assert [kong.code for kong in answers] == ["served", "served", "spend_cap_reached"]
        assert answers[-1].status == 429
        assert answers[-1].problem["limit"]["name"] == "spend-cap"
        assert int(answers[-1].answer[headers.RETRY_AFTER]) > 600

    def test_stands_in_no_header_of_admitted_calls(self, call, project):
        account = project(grant=limited(spend_cap=CAP, windows=(Window(9, 60_000),)))
        answer = call(account.text).answer
        assert (answer[headers.LIMIT], answer[headers.REMAINING]) == ("9", "8")
        assert "spend" not in answer[headers.RATE_LIMIT_POLICY]

    def test_of_units_stands_beside_the_others(self, call, project):
        account = project(
            grant=limited(spend_cap=SpendCap(9, "usd", ceiling_units=3), windows=(Window(9, 60_000),))
        )
        answer = call(account.text).answer
        assert (answer[headers.LIMIT], answer[headers.REMAINING]) == ("3", "2")
        assert answer[headers.RATE_LIMIT_POLICY] == '"per-minute";q=9;w=60, "spend-cap";q=3'

    def test_that_cannot_be_kept_on_a_route_serves_nobody_there(self, call, project, caplog):
        account = project(grant=limited(spend_cap=CAP))
        assert call(account.text, route="uncharted").code == "unavailable"
        assert "no maximum of tokens is known for one call on the route 'uncharted'" in caplog.text
        assert call(account.text, route="forecast").served

    def test_that_cannot_be_kept_is_told_once_and_read_once_a_second(
        self, call, project, worker, caplog, monkeypatch
    ):
        account = project(grant=limited(spend_cap=CAP))
        reads = []
        read = worker.cache.read
        monkeypatch.setattr(worker.cache, "read", lambda key_hash: reads.append(key_hash) or read(key_hash))
        monkeypatch.setattr(gate, "REFUSE_ON_SECONDS", 3600.0)
        assert {call(account.text, route="uncharted").code for _ in range(10)} == {"unavailable"}
        assert len(reads) == 1
        monkeypatch.setattr(gate, "REFUSE_ON_SECONDS", 0.0)
        assert {call(account.text, route="uncharted").code for _ in range(10)} == {"unavailable"}
        assert len(reads) == 11
        assert caplog.text.count("cannot be used") == caplog.text.count("Traceback") == 1
        account.change_account(name="Acme & Sons")
        assert {call(account.text, route="uncharted").code for _ in range(3)} == {"unavailable"}
        assert caplog.text.count("cannot be used") == caplog.text.count("Traceback") == 2

    def test_that_cannot_be_kept_serves_again_as_soon_as_it_can(self, call, project, monkeypatch):
        account = project(grant=limited(spend_cap=CAP))
        assert call(account.text, route="uncharted").code == "unavailable"
        reserves = {"uncharted": {"tokens": 1}}
        cap = SpendCap(2000, "usd", usage_minor=20, prices=(TOKENS,), reserves=reserves)
        account.change_account(products={PRODUCT: limited(spend_cap=cap)})
        monkeypatch.setattr(gate, "REFUSE_ON_SECONDS", 0.0)
        assert call(account.text, route="uncharted").served

    def test_reserves_by_route(self, call, project):
        reserves = {"forecast": {"tokens": 10}, "archive": {"tokens": 1}}
        cap = SpendCap(2000, "usd", usage_minor=20, prices=(TOKENS,), reserves=reserves)
        account = project(grant=limited(spend_cap=cap))
        assert call(account.text).served
        assert [call(account.text, route="archive").code for _ in range(11)] == ["served"] * 10 + [
            "spend_cap_reached"
        ]

    def test_asks_for_the_route_only_where_it_matters(self, call, project):
        without = project(grant=limited())
        with_cap = project(account="acc_2", grant=limited(spend_cap=CAP))
        assert "router.get_route" not in call(without.text).names
        assert "router.get_route" in call(with_cap.text).names


class TestConcurrencyAtTheGate:
    def test_is_told_in_advance_by_its_own_unit(self, call, project):
        account = project(grant=limited(concurrency=Concurrency(3, 60_000)))
        kong = call(account.text)
        assert kong.answer[headers.RATE_LIMIT_POLICY] == '"concurrent";q=3;qu="concurrent-requests"'
        assert headers.LIMIT not in kong.answer

    def test_of_test_keys_is_apart(self, call, project):
        account = project(mode=Mode.TEST, grant=limited(concurrency=Concurrency(1, 60_000)))
        config = {"sandbox_upstream": "box"}
        codes = [call(account.text, config=config, upstreams=("box",)).code for _ in range(2)]
        assert codes == ["served", "rate_limited"]


class TestWhileRedisIsAway:
    @pytest.fixture
    def away(self, own_valkey, start_worker, project_in):
        """Make calls with Redis, then take it away."""

        def leave(calls, **changes):
            valkey = own_valkey()
            start_worker(valkey.url)
            account = project_in(valkey.url, grant=limited(**changes))
            before = [make_call(account.text).code for _ in range(calls)]
            valkey.kill()
            return account, before

        return leave

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"quota": Quota(2, hard=True)}, "quota_exceeded"),
            ({"quota": Quota(1, hard=False, cap_units=2)}, "quota_exceeded"),
            ({"spend_cap": CAP}, "spend_cap_reached"),
        ],
    )
    def test_what_was_used_up_stays_so(self, away, changes, code):
        account, before = away(3, **changes)
        assert before == ["served", "served", code]
        assert make_call(account.text).code == code

    def test_what_was_not_used_up_cannot_be_counted(self, away):
        account, before = away(1, quota=Quota(2, hard=True), concurrency=Concurrency(1, 60_000))
        assert before == ["served"]
        assert [make_call(account.text).code for _ in range(3)] == ["served"] * 3

    def test_a_window_that_was_full_begins_anew_in_each_worker(self, away):
        """The stated bound: the limit once for each worker, beside what Redis had admitted."""
        account, before = away(3, windows=(Window(2, 60_000),))
        assert before == ["served", "served", "rate_limited"]
        assert [make_call(account.text).code for _ in range(3)] == ["served", "served", "rate_limited"]

    def test_a_quota_that_was_given_back_is_forgotten(self, own_valkey, start_worker, project_in):
        valkey = own_valkey()
        start_worker(valkey.url)
        account = project_in(valkey.url, grant=limited(quota=Quota(1, hard=True)))
        assert [make_call(account.text).code for _ in range(2)] == ["served", "quota_exceeded"]
        account.change_account(products={PRODUCT: limited(quota=Quota(3, hard=True))})
        assert make_call(account.text).served
        valkey.kill()
        assert make_call(account.text).served
