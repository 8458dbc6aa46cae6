"""What each kind of call gets, and in how many calls to Kong."""

import json
import time

import http_sf
import pytest
import redis

from gateway_contract import api_keys, headers, redis_names
from gateway_contract.modes import Mode
from gateway_contract.outcomes import UNIDENTIFIED, Outcome
from gateway_contract.receipts import Place, parse_refusal_note, parse_secrets, verify_receipt
from gateway_contract.records import AccountStatus, KeyStatus, Quota, Window
from kong_plugins.parts import attachment
from kong_plugins.plugins import km_key_auth, km_monetize
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, grant, now_ms

SERVED_CALLS = [
    "request.get_headers",
    "client.authenticate",
    "service.request.set_headers",
    "response.set_headers",
]
REFUSED_CALLS = ["request.get_headers", "response.exit"]
SECRETS = parse_secrets(SECRET)
SANDBOX = {"sandbox_upstream": "weather-sandbox"}


def receipt_of(kong, place=Place.ANSWER):
    told = kong.upstream if place is Place.UPSTREAM else kong.answer
    return verify_receipt(told[headers.RECEIPT], place=place, secrets=SECRETS)


def without_limits(**changes):
    return grant(windows=(), quota=None, **changes)


class TestServedCall:
    def test_takes_four_calls_to_kong(self, project, call):
        assert call(project().text).names == SERVED_CALLS

    def test_takes_three_without_consumer(self, project, call):
        kong = call(project().text, config={"consumer": False})
        assert kong.names == [name for name in SERVED_CALLS if name != "client.authenticate"]

    def test_carries_one_receipt_on_both_ways(self, project, call):
        account = project()
        kong = call(account.text)
        upstream, answer = receipt_of(kong, Place.UPSTREAM), receipt_of(kong)
        assert upstream == answer
        assert upstream.account_id == "acc_1"
        assert upstream.key_id == account.key.id
        assert upstream.product == PRODUCT
        assert (upstream.mode, upstream.outcome) == (Mode.LIVE, Outcome.SERVED)
        assert (upstream.call_number, upstream.units) == (1, 1)
        assert abs(upstream.decided_at_ms - now_ms()) < 10_000
        assert kong.upstream[headers.RECEIPT] != kong.answer[headers.RECEIPT]

    def test_is_numbered_by_redis_and_named_by_the_process(self, project, call):
        account = project()
        receipts = [receipt_of(call(account.text)) for _ in range(3)]
        assert [receipt.call_number for receipt in receipts] == [1, 2, 3]
        assert len({receipt.event_id for receipt in receipts}) == 3
        assert len({receipt.emitter for receipt in receipts}) == 1

    def test_tells_the_upstream_who_calls_and_hides_the_key(self, project, call):
        account = project()
        kong = call(account.text)
        assert kong.upstream[headers.ACCOUNT] == kong.upstream[headers.CONSUMER_CUSTOM_ID] == "acc_1"
        assert kong.upstream[headers.CONSUMER_USERNAME] == "Acme"
        assert kong.upstream[headers.CREDENTIAL_IDENTIFIER] == account.key.id
        assert kong.upstream[headers.PLAN] == "starter"
        assert kong.upstream[headers.MODE] == "live"
        assert kong.upstream["apikey"] == headers.REDACTED
        consumer, credential = kong.consumer
        assert consumer["custom_id"] == "acc_1"
        assert credential["consumer_id"] == consumer["id"] == kong.upstream[headers.CONSUMER_ID]

    def test_lets_the_key_through_where_asked_to(self, project, call):
        kong = call(project().text, config={"hide_key": False})
        assert "apikey" not in kong.upstream

    def test_names_accounts_in_header_characters_only(self, project, call):
        account = project()
        account.change_account(name="Ä\r\nX-Evil: 1")
        assert call(account.text).upstream[headers.CONSUMER_USERNAME] == "%C3%84%0D%0AX-Evil: 1"

    def test_overwrites_what_the_caller_sent_under_our_names(self, project, call):
        ours = (headers.RECEIPT, headers.ACCOUNT, headers.PLAN, headers.MODE, headers.CONSUMER_ID)
        kong = call(project().text, headers=dict.fromkeys(ours, "mine"))
        assert all(kong.upstream[name] != "mine" for name in ours)
        assert kong.served

    @pytest.mark.parametrize("attached", ["km-monetize", "km-key-auth"])
    def test_overwrites_names_that_cgi_takes_for_ours(self, worker, project, attached):
        """WSGI, Rack and PHP read X_Km_Account and X-Km-Account as one; Kong lets underscores through."""
        account = project()
        forged = {"X_Km_Account": "acc_2", "x-consumer_id": "1", "X_Km_Plan": "enterprise", "X_Km_Receipt": "1.a"}
        kong = FakeKong({"apikey": account.text, "x_trace_id": "7", **forged})
        plugin = {"km-monetize": km_monetize, "km-key-auth": km_key_auth}[attached].Plugin
        plugin({"api_product": PRODUCT}).access(kong)
        assert kong.served
        assert kong.upstream["x_km_account"] == "acc_1"
        assert kong.upstream["x_km_plan"] == "starter"
        assert kong.upstream["x-consumer_id"] == kong.upstream[headers.CONSUMER_ID]
        assert kong.upstream["x_km_receipt"] == headers.REDACTED
        assert "x_trace_id" not in kong.upstream
        assert kong.names.count("service.request.set_headers") == 1

    def test_counts_units_by_route(self, project, call):
        account = project(grant=grant(route_units={"bulk": 10}))
        kong = call(account.text, route="bulk")
        assert receipt_of(kong).units == 10
        assert kong.names.count("router.get_route") == 1
        assert receipt_of(call(account.text, route="other")).units == 1
        assert account.counters()["units"] == 11

    def test_asks_for_the_route_once_where_attached_to_one(self, project, call):
        account = project(grant=grant(route_units={"bulk": 10}))
        config = {"route_id": "7d1c0b52-route"}
        assert receipt_of(call(account.text, config=config, route="bulk")).units == 10
        again = call(account.text, config=config, route="bulk")
        assert receipt_of(again).units == 10
        assert again.names == SERVED_CALLS

    def test_asks_for_the_route_again_after_a_minute(self, project, call, monkeypatch):
        account = project(grant=grant(route_units={"bulk": 10, "small": 2}))
        config = {"route_id": "91b2fb05-route"}
        assert receipt_of(call(account.text, config=config, route="bulk")).units == 10
        later = time.monotonic() + attachment.ASK_AGAIN_SECONDS
        monkeypatch.setattr(attachment, "monotonic", lambda: later)
        assert receipt_of(call(account.text, config=config, route="small")).units == 2
        again = call(account.text, config=config, route="small")
        assert receipt_of(again).units == 2
        assert again.names == SERVED_CALLS

    @pytest.mark.parametrize("header", ["apikey", "x-api-key"])
    def test_accepts_the_key_in_either_header(self, project, call, header):
        kong = call(headers={header: project().text})
        assert kong.served
        assert kong.upstream[header] == headers.REDACTED

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
    def test_accepts_a_bearer_token(self, project, call, scheme):
        kong = call(headers={"authorization": f"{scheme} {project().text}"})
        assert kong.served
        assert kong.upstream["authorization"] == headers.REDACTED

    def test_leaves_other_authorization_alone(self, project, call):
        kong = call(project().text, headers={"authorization": "Bearer eyJhbGciOi"})
        assert kong.served
        assert "authorization" not in kong.upstream

    def test_accepts_the_key_in_a_header_of_the_operators_choice(self, project, call):
        kong = call(headers={"x-weather-key": project().text}, config={"key_headers": ["X-Weather-Key"]})
        assert kong.served


class TestLimitHeaders:
    def test_tell_of_the_tightest_limit(self, project, call):
        kong = call(project().text)
        assert kong.answer[headers.LIMIT] == "10"
        assert kong.answer[headers.REMAINING] == "9"
        assert kong.answer[headers.RESET] == "1"
        assert headers.RETRY_AFTER not in kong.answer

    def test_are_structured_fields(self, project, call):
        account = project(quota_units=900, windows=(Window(5, 250),))
        kong = call(account.text)
        policy = http_sf.parse(kong.answer[headers.RATE_LIMIT_POLICY].encode(), tltype="list")
        assert policy == [
            ("per-second", {"q": 10, "w": 1}),
            ("per-minute", {"q": 300, "w": 60}),
            ("key-per-250ms", {"q": 5, "w": 1}),
            ("quota", {"q": 1000}),
            ("key-quota", {"q": 900}),
        ]
        state = http_sf.parse(kong.answer[headers.RATE_LIMIT].encode(), tltype="list")
        assert state == [("key-per-250ms", {"r": 4, "t": 1})]

    def test_are_absent_without_limits(self, project, call):
        kong = call(project(grant=without_limits()).text)
        assert list(kong.answer) == [headers.RECEIPT]

    def test_do_not_count_a_soft_quota(self, project, call):
        account = project(grant=grant(windows=(Window(10, 60_000),), quota=Quota(1, hard=False)))
        assert [call(account.text).answer[headers.REMAINING] for _ in range(3)] == ["9", "8", "7"]


class TestRateLimitedCall:
    def test_says_what_was_hit_and_what_would_fit(self, project, call):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        assert call(account.text).served
        kong = call(account.text)
        assert kong.status == 429
        assert kong.names == REFUSED_CALLS
        assert kong.answer["Content-Type"] == "application/problem+json"
        retry_after = int(kong.answer[headers.RETRY_AFTER])
        assert 58 <= retry_after <= 60
        problem = kong.problem
        assert problem.pop("limit") == {
            "name": "per-minute",
            "limit": 1,
            "remaining": 0,
            "window_seconds": 60.0,
            "retry_after_seconds": retry_after,
        }
        assert problem == {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "violated-policies": ["per-minute"],
            "title": "Too many requests",
            "status": 429,
            "detail": "The limit per-minute allows 1 in 60 s.",
            "code": "rate_limited",
            "plan": {"code": "starter", "name": "Starter"},
            "upgrade": {"code": "growth", "name": "Growth", "url": "https://example.com/pricing?plan=growth"},
        }
        assert kong.answer[headers.LIMIT] == "1"
        assert kong.answer[headers.REMAINING] == "0"
        assert kong.answer[headers.RESET] == str(retry_after)
        state = http_sf.parse(kong.answer[headers.RATE_LIMIT].encode(), tltype="list")
        assert state == [("per-minute", {"r": 0, "t": retry_after})]
        assert headers.RATE_LIMIT_POLICY in kong.answer

    def test_is_receipted_and_consumes_nothing(self, project, call):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        call(account.text)
        before = account.counters()
        receipt = receipt_of(call(account.text))
        assert (receipt.outcome, receipt.call_number, receipt.units) == (Outcome.RATE_LIMITED, 0, 0)
        assert account.counters() == before

    def test_by_the_quota_may_come_back_in_the_next_period(self, project, call):
        account = project(grant=grant(windows=(), quota=Quota(2, hard=True)))
        assert [call(account.text).code for _ in range(3)] == ["served", "served", "quota_exceeded"]
        kong = call(account.text)
        period = account.account.products[PRODUCT].periods[0]
        assert kong.status == 429
        assert abs(int(kong.answer[headers.RETRY_AFTER]) - (period.end_ms - now_ms()) / 1000) < 30
        assert kong.problem["limit"]["name"] == "quota"
        assert kong.problem["detail"] == "The limit quota allows 2 in the billing period."
        assert receipt_of(kong).outcome is Outcome.QUOTA_EXCEEDED

    def test_of_the_highest_plan_names_no_upgrade(self, project, call):
        account = project(grant=grant(windows=(Window(0, 1000),), upgrade=None))
        assert call(account.text).problem["upgrade"] is None

    def test_may_go_on_when_retry_after_has_passed(self, project, call):
        account = project(grant=grant(windows=(Window(1, 1000),)))
        assert call(account.text).served
        refused = call(account.text)
        assert refused.status == 429
        time.sleep(int(refused.answer[headers.RETRY_AFTER]))
        assert call(account.text).served


class TestUnidentifiedCall:
    WELL_FORMED = api_keys.generate_api_key(Mode.LIVE)
    MISTYPED = WELL_FORMED[:-1] + ("A" if WELL_FORMED[-1] != "A" else "B")

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            ({}, "no_key"),
            ({"apikey": ""}, "no_key"),
            ({"authorization": "Basic a21fbGl2ZV8="}, "no_key"),
            ({"authorization": "Bearer eyJhbGciOi"}, "no_key"),
            ({"apikey": MISTYPED}, "malformed_key"),
            ({"apikey": "hunter2"}, "malformed_key"),
            ({"apikey": "\udcff" * 46}, "malformed_key"),
            ({"apikey": WELL_FORMED + "\n"}, "malformed_key"),
            ({"authorization": f"Bearer {MISTYPED}"}, "malformed_key"),
            ({"apikey": WELL_FORMED}, "unknown_key"),
            ({"apikey": [WELL_FORMED, WELL_FORMED]}, "ambiguous_key"),
            ({"apikey": WELL_FORMED, "x-api-key": WELL_FORMED}, "ambiguous_key"),
            ({"apikey": WELL_FORMED, "authorization": f"Bearer {WELL_FORMED}"}, "ambiguous_key"),
            ({"authorization": [f"Bearer {WELL_FORMED}", "Basic eA=="]}, "ambiguous_key"),
        ],
    )
    def test_is_refused_with_a_challenge_and_a_note(self, project, call, sent, code):
        project().mark_all()
        kong = call(headers=sent)
        assert (kong.status, kong.code) == (401, code)
        assert kong.names == REFUSED_CALLS
        assert kong.answer["WWW-Authenticate"].startswith(f'Key realm="{PRODUCT}", Bearer realm="{PRODUCT}"')
        assert parse_refusal_note(kong.answer[headers.RECEIPT]) is Outcome(code)
        assert kong.problem["status"] == 401
        assert self.WELL_FORMED not in json.dumps([str(kong.body), kong.answer])

    def test_with_a_mistyped_key_never_reaches_redis(self, call, redis_url):
        def commands():
            with redis.Redis.from_url(redis_url) as client:
                return client.info("stats")["total_commands_processed"]

        call(headers={"apikey": self.MISTYPED})
        before = commands()
        for _ in range(20):
            assert call(headers={"apikey": self.MISTYPED}).code == "malformed_key"
        assert commands() - before < 20  # what asks for the number is counted, and pings of others

    def test_with_an_unknown_key_asks_redis_once_a_second(self, project, call, worker):
        project().mark_all()
        for _ in range(5):
            assert call(self.WELL_FORMED).code == "unknown_key"
        assert worker.cache.knows(api_keys.hash_api_key(self.WELL_FORMED)) is not None

    def test_is_served_once_the_key_exists(self, project, call, redis_url):
        account = project()
        account.client.delete(redis_names.key_record(account.key_hash))
        assert call(account.text).code == "unknown_key"
        account.write()
        deadline = time.monotonic() + 10
        while not call(account.text).served:
            assert time.monotonic() < deadline
            time.sleep(0.1)


class TestIdentifiedRefusal:
    def refused(self, kong, status, outcome):
        assert (kong.status, kong.code) == (status, outcome.value)
        assert outcome not in UNIDENTIFIED
        receipt = receipt_of(kong)
        assert (receipt.outcome, receipt.account_id, receipt.call_number) == (outcome, "acc_1", 0)
        assert not kong.upstream

    def test_of_a_revoked_key(self, project, call):
        account = project()
        account.change_key(status=KeyStatus.REVOKED)
        kong = call(account.text)
        self.refused(kong, 401, Outcome.KEY_REVOKED)
        assert kong.names == REFUSED_CALLS
        assert kong.answer["WWW-Authenticate"]

    def test_of_an_expired_key(self, project, call):
        self.refused(call(project(expires_at_ms=now_ms() - 1).text), 401, Outcome.KEY_EXPIRED)

    def test_not_of_a_key_that_expires_later(self, project, call):
        kong = call(project(expires_at_ms=now_ms() + 60_000).text)
        assert kong.names == SERVED_CALLS

    @pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.DELETED])
    def test_of_an_account_that_is_not_active(self, project, call, status):
        account = project()
        account.change_account(status=status)
        self.refused(call(account.text), 403, Outcome.ACCOUNT_SUSPENDED)

    def test_of_an_account_without_subscription(self, project, call):
        kong = call(project().text, config={"api_product": "other"})
        assert (kong.status, kong.code) == (403, "not_subscribed")
        assert receipt_of(kong).product == "other"

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_not_of_reading_with_a_read_only_key(self, project, call, method):
        kong = call(project(scopes=("read_only",)).text, method=method)
        assert kong.served
        assert kong.names.count("request.get_method") == 1

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get"])
    def test_of_writing_with_a_read_only_key(self, project, call, method):
        kong = call(project(scopes=("read_only",)).text, method=method)
        self.refused(kong, 403, Outcome.SCOPE_MISSING)

    def test_of_a_key_without_any_scope_for_calls(self, project, call):
        self.refused(call(project(scopes=("reports",)).text), 403, Outcome.SCOPE_MISSING)

    @pytest.mark.parametrize("address", ["192.0.2.77", "::ffff:192.0.2.77", "2001:db8::5"])
    def test_not_of_an_address_in_the_keys_ranges(self, project, call, address):
        account = project(ip_ranges=("192.0.2.0/24", "2001:db8::/32"))
        kong = call(account.text, address=address)
        assert kong.served
        assert kong.names.count("client.get_forwarded_ip") == 1

    @pytest.mark.parametrize("address", ["198.51.100.1", "::ffff:198.51.100.1", "2001:db9::5", "", "localhost"])
    def test_of_an_address_outside_of_them(self, project, call, address):
        account = project(ip_ranges=("192.0.2.0/24", "2001:db8::/32"))
        self.refused(call(account.text, address=address), 403, Outcome.IP_NOT_ALLOWED)

    def test_unreadable_ranges_let_nobody_through(self, project, call):
        assert call(project(ip_ranges=("192.0.2.0/99",)).text).code == "unavailable"

    def test_of_a_plan_without_the_routes_entitlement(self, project, call):
        kong = call(project().text, config={"entitlement": "premium"})
        self.refused(kong, 403, Outcome.NOT_ENTITLED)

    def test_not_of_a_plan_with_it(self, project, call):
        account = project(grant=grant(entitlements=("premium",)))
        assert call(account.text, config={"entitlement": "premium"}).served

    def test_consumes_nothing(self, project, call):
        account = project(scopes=("read_only",))
        call(account.text, method="POST")
        assert account.counters() == {}

    def test_ends_as_soon_as_the_reason_does(self, project, call):
        account = project()
        account.change_account(status=AccountStatus.SUSPENDED)
        assert call(account.text).code == "account_suspended"
        account.change_account(status=AccountStatus.ACTIVE)
        deadline = time.monotonic() + 10
        while not call(account.text).served:
            assert time.monotonic() < deadline
            time.sleep(0.1)


class TestTestKey:
    def test_is_refused_where_there_is_no_sandbox(self, project, call):
        kong = call(project(mode=Mode.TEST).text)
        assert (kong.status, kong.code) == (403, "no_sandbox")
        assert receipt_of(kong).mode is Mode.TEST

    def test_is_sent_to_the_sandbox(self, project, call):
        kong = call(project(mode=Mode.TEST).text, config=SANDBOX, upstreams=("weather-sandbox",))
        assert kong.served
        assert kong.sent_to == "weather-sandbox"
        assert kong.upstream[headers.MODE] == "test"

    def test_never_reaches_the_live_upstream_when_kong_does_not_know_the_sandbox(self, project, call):
        kong = call(project(mode=Mode.TEST).text, config=SANDBOX)
        assert (kong.status, kong.code) == (403, "no_sandbox")

    def test_is_counted_and_limited_apart_from_live_keys(self, project, call):
        limits = grant(windows=(Window(1, 60_000),))
        live, test = project(grant=limits), project(grant=limits, mode=Mode.TEST)
        assert call(live.text).served
        assert call(test.text, config=SANDBOX, upstreams=("weather-sandbox",)).served
        assert call(live.text).code == "rate_limited"
        assert live.counters()["calls"] == live.counters(Mode.TEST)["calls"] == 1

    def test_sends_live_keys_nowhere_else(self, project, call):
        kong = call(project().text, config=SANDBOX, upstreams=("weather-sandbox",))
        assert kong.served
        assert kong.sent_to is None
