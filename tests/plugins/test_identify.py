"""Where keys come from, what they may do, and what of a request the upstream never sees."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_contract import api_keys, headers
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from gateway_contract.records import AccountStatus, KeyStatus, Window
from kong_plugins.parts.plugin_config import read_access_config
from kong_plugins.parts.presented_key import PresentedKey, find_presented_key
from kong_plugins.plugins import km_key_auth, km_monetize, km_plan_limit
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, Projected, grant, now_ms

CONFIG = {"api_product": PRODUCT}
QUERY = {"key_query": ["apikey", "key"]}
IMPORTED = {"imported_keys": True}
OLD_KEY = "4hJ+q/Zt=legacy~key%1"
KEY = api_keys.generate_api_key(Mode.LIVE)
OTHER = api_keys.generate_api_key(Mode.LIVE)


def import_key(projected: Projected, text: str) -> str:
    """Have the account's key be this text, as the control plane imports it: by its hash."""
    projected.text, projected.key_hash = text, api_keys.hash_api_key(text)
    projected.write()
    return text


def sent_by(config=None, **facts):
    """Say what `find_presented_key` finds."""
    read = read_access_config({**CONFIG, **(config or {})})
    return find_presented_key(facts.get("headers", {}), config=read, raw_query=facts.get("query", ""))


class TestKeyInTheQuery:
    def test_is_found_with_one_call_more_and_hidden_with_another(self, project, call):
        kong = call(config=QUERY, query=f"city=oslo&apikey={project().text}&units=m")
        assert kong.served
        assert kong.names == [
            "request.get_headers",
            "request.get_raw_query",
            "client.authenticate",
            "service.request.set_raw_query",
            "service.request.set_headers",
            "response.set_headers",
        ]
        assert kong.query_sent == "city=oslo&units=m"

    def test_is_left_where_it_is_not_to_be_hidden(self, project, call):
        kong = call(config={**QUERY, "hide_key": False}, query=f"apikey={project().text}")
        assert kong.served
        assert kong.query_sent is None

    def test_counts_for_nothing_by_default_and_costs_no_call(self, project, call):
        kong = call(query=f"apikey={project().text}")
        assert kong.code == "no_key"
        assert kong.names == ["request.get_headers", "response.exit"]

    def test_leaves_the_query_alone_when_the_key_is_in_a_header(self, project, call):
        kong = call(project().text, config=QUERY, query="city=oslo&apikey=")
        assert kong.served
        assert kong.query_sent is None

    @pytest.mark.parametrize(
        ("query", "rest"),
        [
            (f"apikey={KEY}", ""),
            (f"a=%7E&apikey={KEY}&b=1+2&&c", "a=%7E&b=1+2&&c"),
            (f"&apikey={KEY}&", "&"),
            (f"%61pike%79={KEY}&x", "x"),
            (f"key={KEY.replace('_', '%5F')}&x=%ff\udcff", "x=%ff\udcff"),
            (f"apikey=&apikey&key={KEY}", "apikey=&apikey"),
            (f"APIKEY=1&apikey={KEY}&keys=2", "APIKEY=1&keys=2"),
        ],
    )
    def test_is_taken_out_and_all_other_bytes_stay(self, query, rest):
        assert sent_by(QUERY, query=query) == PresentedKey(KEY, "", rest)

    @pytest.mark.parametrize(
        "query",
        [f"apikey={KEY}&apikey={KEY}", f"apikey={KEY}&key={OTHER}", f"apikey={KEY}&%6bey={KEY}", "key=x&apikey=y"],
    )
    def test_given_twice_is_ambiguous(self, query):
        assert sent_by(QUERY, query=query) is Outcome.AMBIGUOUS_KEY

    @pytest.mark.parametrize("sent", [{"apikey": KEY}, {"authorization": f"Bearer {KEY}"}])
    def test_beside_one_in_a_header_is_ambiguous(self, sent):
        assert sent_by(QUERY, headers=sent, query=f"apikey={KEY}") is Outcome.AMBIGUOUS_KEY

    @pytest.mark.parametrize("query", ["", "apikey=", "apikey", "&&", "%=%&%zz=1&=x", "x=apikey"])
    def test_is_none_where_there_is_no_value(self, query):
        assert sent_by(QUERY, query=query) is Outcome.NO_KEY

    @given(st.lists(st.text("abkeypi%61+=x;", max_size=12), max_size=6))
    def test_whatever_stands_around_it_stays(self, parts):
        parts = [part for part in parts if sent_by(QUERY, query=part) is Outcome.NO_KEY]
        around = ["&".join(parts[:2]), "&".join(parts[2:])]
        presented = sent_by(QUERY, query="&".join([around[0], f"key={KEY}", around[1]]))
        assert presented == PresentedKey(KEY, "", "&".join(around))

    def test_that_is_malformed_is_refused_without_a_look_up(self, call, worker, monkeypatch):
        monkeypatch.setattr(worker.cache, "read", lambda _: pytest.fail("looked up"))
        assert call(config=QUERY, query=f"apikey={KEY[:-1]}!").code == "malformed_key"


class TestImportedKey:
    def test_is_served_where_imported_keys_are_accepted(self, project, call):
        text = import_key(project(), OLD_KEY)
        kong = call(text, config=IMPORTED)
        assert kong.served
        assert kong.upstream["apikey"] == headers.REDACTED
        assert call(headers={"authorization": f"Bearer {text}"}, config=IMPORTED).served

    def test_is_malformed_elsewhere_even_when_this_worker_knows_it(self, project, call):
        text = import_key(project(), "x" * api_keys.KEY_LENGTH)
        assert call(text, config=IMPORTED).served
        assert call(text).code == "malformed_key"
        assert call(headers={"authorization": f"Bearer {text}"}).code == "no_key"

    def test_comes_through_the_query_decoded(self, project, call):
        import_key(project(), OLD_KEY)
        kong = call(config={**IMPORTED, **QUERY}, query="key=4hJ%2Bq%2FZt%3Dlegacy~key%251&x=1")
        assert kong.served
        assert kong.query_sent == "x=1"

    def test_that_nobody_imported_is_unknown(self, project, call):
        project().mark_all()
        assert call(OLD_KEY, config=IMPORTED).code == "unknown_key"

    @pytest.mark.parametrize("text", ["short", "x" * 513, "with blank", "tab\tin-it", "umläut-key", "\udcff" * 9])
    def test_of_no_such_form_is_refused_without_a_look_up(self, call, worker, monkeypatch, text):
        monkeypatch.setattr(worker.cache, "read", lambda _: pytest.fail("looked up"))
        assert call(text, config=IMPORTED).code == "malformed_key"

    def test_of_our_form_must_have_its_checksum_all_the_same(self, call, worker, monkeypatch):
        monkeypatch.setattr(worker.cache, "read", lambda _: pytest.fail("looked up"))
        assert call(KEY[:-1] + ("x" if KEY[-1] != "x" else "y"), config=IMPORTED).code == "malformed_key"

    @pytest.mark.parametrize("text", ["x" * 8, "~" * 512])
    def test_may_be_as_short_or_as_long_as_told(self, project, call, text):
        import_key(project(), text)
        assert call(text, config=IMPORTED).served


# scopes of the key, demanded scopes, demanded by method, method, what the call would need (() where served)
SCOPES = [
    (("full",), (), {}, "DELETE", ()),
    (("full",), ("reports",), {"POST": ["admin"]}, "POST", ()),
    (("read_only",), (), {}, "GET", ()),
    (("read_only",), (), {}, "POST", ("full",)),
    (("read_only",), ("reports",), {}, "GET", ("reports",)),
    (("reports",), (), {}, "GET", ("full",)),
    (("reports",), ("reports",), {}, "POST", ()),
    (("reports",), ("reports", "admin"), {}, "GET", ("reports", "admin")),
    (("reports", "admin"), ("reports", "admin"), {}, "PATCH", ()),
    (("read_only", "reports"), ("reports",), {}, "GET", ()),
    (("read_only", "reports"), ("reports",), {}, "OPTIONS", ()),
    (("read_only", "reports"), ("reports",), {}, "PUT", ("full",)),
    (("reports",), (), {"POST": ["reports"]}, "POST", ()),
    (("reports",), (), {"POST": ["reports"]}, "PUT", ("full",)),
    (("reports",), (), {"POST": ["reports"]}, "GET", ("full",)),
    (("reports",), ("reports",), {"POST": ["admin"]}, "POST", ("admin",)),
    (("reports",), ("reports",), {"POST": ["admin"]}, "GET", ()),
    (("read_only",), ("reports",), {"GET": []}, "GET", ()),
    (("read_only",), ("reports",), {"GET": []}, "HEAD", ()),
    (("read_only",), ("reports",), {"GET": []}, "OPTIONS", ("reports",)),
    (("read_only",), (), {"GET": ["reports"]}, "HEAD", ("reports",)),
    (("read_only",), (), {"GET": ["reports"], "HEAD": []}, "HEAD", ()),
    (("read_only",), ("read_only",), {}, "GET", ()),
]


class TestScopes:
    @pytest.mark.parametrize("case", SCOPES)
    def test_decide_by_route_and_method(self, project, call, case):
        held, demanded, by_method, method, missing = case
        config = {"scopes": list(demanded), "method_scopes": by_method}
        kong = call(project(scopes=held).text, config=config, method=method)
        assert kong.code == ("scope_missing" if missing else "served")
        if missing:
            assert kong.status == 403
            challenge = f'Bearer realm="{PRODUCT}", error="insufficient_scope", scope="{" ".join(missing)}"'
            assert kong.answer["WWW-Authenticate"] == f'Key realm="{PRODUCT}", {challenge}'

    @pytest.mark.parametrize(
        ("held", "config", "asked"),
        [
            (("full",), {"scopes": ["a"], "method_scopes": {"POST": ["b"]}}, 0),
            (("a",), {"scopes": ["a"]}, 0),
            (("b",), {"scopes": ["a"]}, 0),
            (("a",), {"scopes": ["a"], "method_scopes": {"POST": ["b"]}}, 1),
            (("read_only",), {}, 1),
        ],
    )
    def test_ask_kong_for_the_method_only_where_it_decides(self, project, call, held, config, asked):
        kong = call(project(scopes=held).text, config=config)
        assert kong.names.count("request.get_method") == asked

    def test_hold_again_as_soon_as_the_key_has_them(self, project, call):
        account = project(scopes=("read_only",))
        assert call(account.text, config={"scopes": ["reports"]}).code == "scope_missing"
        account.change_key(scopes=("reports",))
        deadline = time.monotonic() + 10
        while not call(account.text, config={"scopes": ["reports"]}).served:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_are_judged_by_km_key_auth_and_left_alone_by_km_plan_limit(self, project, worker):
        account = project(scopes=("reports",))
        kong = FakeKong({"apikey": account.text})
        km_key_auth.Plugin({**CONFIG, "scopes": ["reports"]}).access(kong)
        km_plan_limit.Plugin(CONFIG).access(kong)
        assert kong.served

    @pytest.mark.parametrize("value", ["reports", [1], {"POST": 1}])
    def test_of_the_wrong_kind_are_refused_by_name(self, value):
        name = "method_scopes" if isinstance(value, dict) else "scopes"
        with pytest.raises(ValueError, match=f"^{name}"):
            read_access_config({**CONFIG, name: value})


class TestPaymentDue:
    def test_is_refused_with_402_and_a_receipt(self, project, call):
        account = project(grant=grant(payment_due=True))
        kong = call(account.text)
        assert (kong.status, kong.code) == (402, "payment_required")
        receipt = verify_receipt(kong.answer[headers.RECEIPT], place=Place.ANSWER, secrets=parse_secrets(SECRET))
        assert (receipt.outcome, receipt.units) == (Outcome.PAYMENT_REQUIRED, 0)
        assert account.counters() == {}

    def test_is_served_again_once_paid(self, project, call):
        account = project(grant=grant(payment_due=True))
        assert call(account.text).status == 402
        account.change_account(products={PRODUCT: grant()})
        deadline = time.monotonic() + 10
        while not call(account.text).served:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_does_not_hide_that_the_account_is_suspended(self, project, call):
        account = project(grant=grant(payment_due=True))
        account.change_account(status=AccountStatus.SUSPENDED)
        assert call(account.text).status == 403


class TestRotatedKey:
    def test_both_keys_work_until_the_overlap_ends(self, project, call):
        unlimited = grant(windows=())
        old, new = project(grant=unlimited), project(grant=unlimited)
        old.change_key(expires_at_ms=now_ms() + 60_000)
        assert call(old.text).served
        assert call(new.text).served
        old.change_key(expires_at_ms=now_ms() + 500)
        deadline = time.monotonic() + 10
        while call(old.text).served:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert call(old.text).code == "key_expired"
        assert call(new.text).served


class TestAnonymousCall:
    @pytest.fixture
    def fallback(self, project):
        return project(grant=grant(windows=(Window(2, 60_000),)))

    def config(self, fallback):
        return {"anonymous": fallback.key_hash.upper()}

    def test_goes_on_under_the_fallback_key_held_to_its_plan(self, fallback, call):
        calls = [call(config=self.config(fallback)) for _ in range(3)]
        assert [kong.code for kong in calls] == ["served", "served", "rate_limited"]
        assert calls[0].upstream[headers.ANONYMOUS] == "true"
        assert calls[0].upstream[headers.ACCOUNT] == "acc_1"
        assert fallback.counters()["calls"] == 2
        receipt = verify_receipt(
            calls[0].upstream[headers.RECEIPT], place=Place.UPSTREAM, secrets=parse_secrets(SECRET)
        )
        assert (receipt.outcome, receipt.key_id) == (Outcome.SERVED, fallback.key.id)

    def test_takes_no_call_more_than_any_other(self, fallback, call):
        assert len(call(config=self.config(fallback)).names) == 4

    @pytest.mark.parametrize("sent", [{"apikey": KEY}, {"apikey": "nonsense"}, {"apikey": [KEY, KEY]}])
    def test_is_none_with_a_wrong_key(self, fallback, call, sent):
        fallback.mark_all()
        assert call(headers=sent, config=self.config(fallback)).status == 401

    def test_is_told_apart_from_calls_with_a_key(self, fallback, project, call):
        kong = call(project().text, config=self.config(fallback), headers={headers.ANONYMOUS: "true"})
        assert kong.upstream[headers.ANONYMOUS] == "false"

    def test_ends_with_the_fallback_key(self, fallback, call):
        assert call(config=self.config(fallback)).served
        fallback.change_key(status=KeyStatus.REVOKED)
        assert call(config=self.config(fallback)).code == "key_revoked"

    def test_is_refused_where_the_fallback_key_does_not_exist(self, fallback, call):
        fallback.mark_all()
        assert call(config={"anonymous": api_keys.hash_api_key(OTHER)}).code == "no_key"

    def test_goes_through_the_pair_too(self, fallback, worker):
        kong = FakeKong({headers.ANONYMOUS: "false"})
        km_key_auth.Plugin({**CONFIG, **self.config(fallback)}).access(kong)
        km_plan_limit.Plugin(CONFIG).access(kong)
        assert kong.served
        assert kong.upstream[headers.ANONYMOUS] == "true"
        assert fallback.counters()["calls"] == 1

    @pytest.mark.parametrize(
        "sent",
        [f"Bearer\t{KEY}", f'Bearer "{KEY}"', f"Basic {KEY}", KEY, f"token={KEY}", ["Basic eDp5", f"Basic {KEY}"]],
    )
    def test_is_none_with_a_key_in_a_form_that_is_not_read(self, fallback, call, sent):
        kong = call(config=self.config(fallback), headers={"authorization": sent})
        assert (kong.status, kong.code) == (401, "malformed_key")
        assert call(headers={"authorization": sent}).code == "no_key", "nothing else changes without a fallback"

    @pytest.mark.parametrize("sent", ["Basic eDp5", "Bearer x", ["Basic eDp5", "Bearer x"], "Basic km_live_short"])
    def test_is_one_with_credentials_for_somebody_else(self, fallback, call, sent):
        assert call(config=self.config(fallback), headers={"authorization": sent}).served

    def test_leaves_a_key_in_the_query_alone_beside_one_that_is_not_read(self, fallback, project, call):
        sent = {"authorization": f"Basic {OTHER}"}
        config = {**self.config(fallback), **QUERY}
        kong = call(config=config, query=f"apikey={project().text}", headers=sent)
        assert kong.served
        assert kong.upstream.get(headers.ANONYMOUS) is None

    def test_hides_keys_that_nobody_reads(self, fallback, call):
        kong = call(config=self.config(fallback), headers={"cookie": f"k={OTHER}"})
        assert kong.upstream["cookie"] == "k=km_live_[redacted]"


# every name in gateway_contract.headers must be here: those that upstreams believe, and the others
TO_UPSTREAMS = {
    "RECEIPT",
    "CONSUMER_ID",
    "CONSUMER_CUSTOM_ID",
    "CONSUMER_USERNAME",
    "CREDENTIAL_IDENTIFIER",
    "ACCOUNT",
    "PLAN",
    "MODE",
    "ANONYMOUS",
}
TO_CALLERS = {
    "LIMIT",
    "REMAINING",
    "RESET",
    "RETRY_AFTER",
    "RATE_LIMIT",
    "RATE_LIMIT_POLICY",
    "WOULD_REFUSE",
}
KONGS_OWN = {"REQUEST_ID"}
NO_HEADERS = {"DEFAULT_KEY_HEADERS", "DEFAULT_REPLAY_HEADERS", "REDACTED"}
PATHS = {
    "served": [(km_monetize, {})],
    "without consumer": [(km_monetize, {"consumer": False, "hide_key": False})],
    "km-key-auth alone": [(km_key_auth, {})],
    "pair": [(km_key_auth, {}), (km_plan_limit, {})],
    "km-monetize twice": [(km_monetize, {}), (km_monetize, {})],
    "km-monetize and km-plan-limit": [(km_monetize, {}), (km_plan_limit, {})],
}


class TestHeadersThatWeSet:
    def test_are_all_known_here(self):
        written = {name for name in vars(headers) if name.isupper()}
        assert written == TO_UPSTREAMS | TO_CALLERS | KONGS_OWN | NO_HEADERS

    @pytest.mark.parametrize("anonymous", [False, True])
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize(
        "spelt", [str, lambda name: name.replace("-", "_"), lambda name: name.replace("-", "_", 1)]
    )
    def test_never_reach_the_upstream_as_a_caller_sent_them(self, project, worker, path, anonymous, spelt):
        account = project()
        names = [spelt(getattr(headers, name)) for name in sorted(TO_UPSTREAMS)]
        sent = dict.fromkeys(names, "forged") | ({} if anonymous else {"apikey": account.text})
        kong = FakeKong(sent)
        for plugin, config in PATHS[path]:
            extra = {"anonymous": account.key_hash} if anonymous and plugin is not km_plan_limit else {}
            plugin.Plugin({**CONFIG, **config, **extra}).access(kong)
        assert kong.served
        reaching = kong.headers | {name.lower(): value for name, value in kong.upstream.items()}
        assert "forged" not in reaching.values()
        assert reaching[spelt(headers.ANONYMOUS).lower()] == ("true" if anonymous else "false")
        assert reaching[spelt(headers.ACCOUNT).lower()] == "acc_1"

    def test_cost_nothing_where_nobody_sends_them(self, project, call):
        kong = call(project().text)
        assert headers.ANONYMOUS not in kong.upstream


class TestMoreHeadersThanKongGives:
    """Kong gives 1,000 lines at most: behind them could stand another key, or a header under our names."""

    @pytest.mark.parametrize(
        "sent",
        [
            {f"x-{number}": "1" for number in range(998)},
            {"x-many": ["1"] * 998},
            {f"x-{number}": ["1", "2"] for number in range(499)},
        ],
        ids=["names", "repetitions", "both"],
    )
    @pytest.mark.parametrize("plugin", [km_monetize, km_key_auth])
    def test_are_ambiguous(self, project, worker, plugin, sent):
        account = project()
        kong = FakeKong({**sent, "apikey": account.text})
        plugin.Plugin({**CONFIG, "anonymous": account.key_hash}).access(kong)
        assert (kong.status, kong.code) == (401, "ambiguous_key")
        fewer = {name: value for name, value in sent.items() if name not in {"x-0", "x-many"}}
        kong = FakeKong({**fewer, "apikey": account.text})
        plugin.Plugin(CONFIG).access(kong)
        assert kong.served

    def test_are_counted_in_kong_pdks_style_too(self, project, worker):
        kong = FakeKong({"apikey": [project().text], "x-many": ["1"] * 998})
        kong.headers["host"] = ["api.example.com"]
        km_monetize.Plugin(CONFIG).access(kong)
        assert kong.code == "ambiguous_key"


KEYS_ELSEWHERE = {
    "cookie": f"theme=dark; key={OTHER}; lang=en",
    "proxy-authorization": f"Token {KEY}",
    "x-old-key": [OTHER, "harmless"],
}
CLEANED = {
    "cookie": "theme=dark; key=km_live_[redacted]; lang=en",
    "proxy-authorization": "Token km_live_[redacted]",
    "x-old-key": ["km_live_[redacted]", "harmless"],
}


class TestKeysElsewhereInTheRequest:
    @pytest.mark.parametrize(
        "names", [["cookie"], ["proxy-authorization"], ["x-old-key"], ["cookie", "x-old-key"]]
    )
    @pytest.mark.parametrize("plugin", [km_monetize, km_key_auth])
    def test_are_hidden_from_the_upstream(self, project, worker, plugin, names):
        account = project()
        kong = FakeKong(
            {"apikey": account.text, "x-plain": "km_", **{name: KEYS_ELSEWHERE[name] for name in names}}
        )
        plugin.Plugin(CONFIG).access(kong)
        assert kong.served
        assert {name: kong.upstream[name] for name in names} == {name: CLEANED[name] for name in names}
        assert "x-plain" not in kong.upstream

    def test_are_left_where_keys_are_not_hidden(self, project, call):
        kong = call(project().text, config={"hide_key": False}, headers={"cookie": KEYS_ELSEWHERE["cookie"]})
        assert "cookie" not in kong.upstream

    def test_are_hidden_beside_a_key_in_the_query(self, project, call):
        kong = call(config=QUERY, query=f"apikey={project().text}", headers={"x-old": OTHER})
        assert kong.upstream["x-old"] == "km_live_[redacted]"

    def test_are_hidden_beside_an_imported_key(self, project, call):
        kong = call(import_key(project(), OLD_KEY), config=IMPORTED, headers={"x-old": OTHER})
        assert kong.upstream["x-old"] == "km_live_[redacted]"

    def test_are_hidden_where_a_token_is_no_key_here(self, project, call):
        sent = {"authorization": f"Bearer {OTHER}"}
        kong = call(project().text, config={"bearer": False}, headers=sent)
        assert kong.upstream["authorization"] == "Bearer km_live_[redacted]"
