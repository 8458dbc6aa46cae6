"""Several plugins of ours on one route: the pair, and mistakes."""

import pytest

from gateway_contract import headers
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from gateway_contract.records import KeyStatus, Window
from kong_plugins.parts import telling
from kong_plugins.parts.redis_connection import RedisAwayError
from kong_plugins.plugins import km_key_auth, km_monetize, km_plan_limit
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, grant

CONFIG = {"api_product": PRODUCT}


@pytest.fixture(autouse=True)
def _warn_anew(monkeypatch):
    monkeypatch.setattr(telling, "_warned_at", -1e9)


def run(kong, *plugins, config=CONFIG):
    """One request through several plugins, as Kong runs them: until one of them answers."""
    for plugin in plugins:
        if kong.served:
            plugin.Plugin(config).access(kong)
    return kong


def pair(key, **facts):
    return run(FakeKong({"apikey": key}, **facts), km_key_auth, km_plan_limit)


def _raise_away():
    raise RedisAwayError("Redis is away")


class TestPair:
    def test_does_in_two_events_what_km_monetize_does_in_one(self, project, worker):
        account = project()
        kong = pair(account.text)
        assert kong.names == [
            "request.get_headers",
            "client.authenticate",
            "ctx.shared.set",
            "service.request.set_headers",
            "ctx.shared.get",
            "service.request.set_headers",
            "response.set_headers",
        ]
        alone = run(FakeKong({"apikey": account.text}), km_monetize)
        assert kong.consumer == alone.consumer
        assert {**kong.upstream, headers.RECEIPT: ""} == {**alone.upstream, headers.RECEIPT: ""}
        assert kong.answer.keys() == alone.answer.keys()
        receipt = verify_receipt(
            kong.upstream[headers.RECEIPT], place=Place.UPSTREAM, secrets=parse_secrets(SECRET)
        )
        assert (receipt.call_number, receipt.outcome) == (1, Outcome.SERVED)
        assert account.counters()["calls"] == 2

    def test_limits(self, project, worker):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        assert pair(account.text).served
        refused = pair(account.text)
        assert refused.code == "rate_limited"
        assert refused.answer[headers.RECEIPT].startswith("1.")

    def test_refuses_a_revoked_key_at_its_next_call(self, project, worker):
        account = project()
        assert pair(account.text).served
        account.change_key(status=KeyStatus.REVOKED)
        kong = pair(account.text)
        assert kong.code == "key_revoked"
        assert kong.names == ["request.get_headers", "response.exit"]

    def test_takes_no_identity_from_a_header(self, project, worker):
        account = project()
        kong = run(FakeKong({"km_key_hash": account.key_hash, "km-key-hash": account.key_hash}), km_plan_limit)
        assert kong.code == "unavailable"

    def test_sends_test_keys_to_the_sandbox(self, project, worker):
        account = project(mode=Mode.TEST)
        kong = FakeKong({"apikey": account.text}, upstreams=("sandbox",))
        km_key_auth.Plugin({**CONFIG, "sandbox_upstream": "sandbox"}).access(kong)
        km_plan_limit.Plugin(CONFIG).access(kong)
        assert (kong.served, kong.sent_to) == (True, "sandbox")
        assert account.counters(Mode.TEST)["calls"] == 1

    def test_asks_for_method_and_address_once(self, project, worker):
        account = project(scopes=("read_only",), ip_ranges=("192.0.2.0/24",))
        names = pair(account.text).names
        assert names.count("request.get_method") == names.count("client.get_forwarded_ip") == 1


class TestKeyAuthAlone:
    def test_consumes_nothing_and_lets_no_receipt_of_the_callers_through(self, project, worker):
        account = project()
        kong = run(FakeKong({"apikey": account.text, "x-km-receipt": "1.mine"}), km_key_auth)
        assert kong.served
        assert kong.upstream[headers.RECEIPT] == headers.REDACTED
        assert account.counters() == {}

    @pytest.mark.parametrize("code", ["no_key", "malformed_key"])
    def test_refuses_whom_it_cannot_identify(self, worker, code):
        kong = run(FakeKong({"apikey": "nonsense"} if code == "malformed_key" else {}), km_key_auth)
        assert (kong.status, kong.code) == (401, code)

    def test_serves_known_keys_while_redis_is_away(self, project, worker, monkeypatch):
        account = project()
        assert run(FakeKong({"apikey": account.text}), km_key_auth).served
        worker.link._drop(RedisAwayError())
        monkeypatch.setattr(worker.link, "_connect_now", _raise_away)
        assert run(FakeKong({"apikey": account.text}), km_key_auth).served


class TestAttachedTwice:
    def test_km_monetize_consumes_once(self, project, worker):
        account = project()
        kong = run(FakeKong({"apikey": account.text}), km_monetize, km_monetize)
        assert kong.served
        assert account.counters()["calls"] == 1
        assert kong.names[4:] == ["request.get_headers", "nginx.get_var", "log.warn"]

    def test_km_monetize_with_km_plan_limit_consumes_once(self, project, worker):
        account = project()
        kong = run(FakeKong({"apikey": account.text}), km_monetize, km_plan_limit)
        assert kong.served
        assert account.counters()["calls"] == 1
        assert kong.names[-1] == "log.warn"

    def test_says_so_once_a_minute_and_counts_each(self, project, worker):
        account = project()
        before = telling._attached_twice.value
        for _ in range(3):
            kong = run(FakeKong({"apikey": account.text}), km_monetize, km_monetize)
        assert "log.warn" not in kong.names
        assert telling._attached_twice.value - before == 3

    def test_is_not_believed_of_a_receipt_that_an_upstream_gave_away(self, project, worker):
        account = project()
        earlier = run(FakeKong({"apikey": account.text}), km_monetize)
        stolen = {"x-km-receipt": earlier.upstream[headers.RECEIPT]}
        assert run(FakeKong(stolen), km_monetize).code == "no_key"
        assert run(FakeKong(stolen), km_plan_limit).code == "unavailable"
        assert run(FakeKong({**stolen, "apikey": account.text}), km_monetize).served
        assert account.counters()["calls"] == 2

    @pytest.mark.parametrize("receipt", ["", "1.2.3", "\udcff", ["a", "b"], "1." + "x." * 10 + "y", "x" * 9000])
    def test_is_not_believed_of_nonsense(self, project, worker, receipt):
        account = project()
        kong = run(FakeKong({"apikey": account.text, "x-km-receipt": receipt}), km_monetize)
        assert kong.served
        assert account.counters()["calls"] == 1
        assert kong.upstream[headers.RECEIPT].startswith("1.")
