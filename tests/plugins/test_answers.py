"""Refusals to the letter: RateLimit fields, problem types, challenges, and the caller's language."""

import http_sf
import pytest

from gateway_contract import headers
from gateway_contract.outcomes import NOT_DECIDED, Outcome
from gateway_contract.records import (
    AccountStatus,
    Concurrency,
    KeyStatus,
    MeterPrice,
    PriceStep,
    Quota,
    SpendCap,
    Upgrade,
    Window,
)
from kong_plugins.parts import worker as worker_module
from kong_plugins.parts.languages import DEFAULT_LANGUAGE, MessagesError, load_messages
from kong_plugins.parts.worker import Worker
from kong_plugins.plugins import km_key_auth, km_plan_limit
from tests.plugins.fakes import PRODUCT, FakeKong, Projected, grant, now_ms

QUOTA_EXCEEDED_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
SHIPPED = ("de", "en", "es", "fr")
REFUSALS = [outcome for outcome in Outcome if outcome not in {Outcome.SERVED, *NOT_DECIDED}]


def fields(kong, name):
    return http_sf.parse(kong.answer[name].encode(), tltype="list")


class TestRateLimitFields:
    def test_name_every_limit_with_its_unit_and_window(self, project, call):
        limits = grant(
            windows=(Window(10, 1000), Window(300, 60_000)),
            quota=Quota(1000, hard=True),
            concurrency=Concurrency(4, 60_000),
        )
        kong = call(project(grant=limits, windows=(Window(200, 3_600_000),)).text)
        policy = dict(fields(kong, headers.RATE_LIMIT_POLICY))
        assert policy.pop("per-second") == {"q": 10, "w": 1}
        assert policy.pop("per-minute") == {"q": 300, "w": 60}
        assert policy.pop("key-per-hour") == {"q": 200, "w": 3600}
        assert policy.pop("quota") == {"q": 1000}
        ((_, parameters),) = policy.items()
        assert parameters == {"q": 4, "qu": "concurrent-requests"}

    @pytest.mark.parametrize(
        ("limits", "name"),
        [
            (grant(windows=(Window(1, 60_000), Window(5, 1000))), "per-minute"),
            (grant(windows=(), quota=Quota(1, hard=True)), "quota"),
        ],
    )
    def test_of_a_refusal_agree_with_its_body_and_with_retry_after(self, project, call, limits, name):
        account = project(grant=limits)
        assert call(account.text).served
        kong = call(account.text)
        assert kong.status == 429
        problem = kong.problem
        assert problem["type"] == QUOTA_EXCEEDED_TYPE
        assert problem["violated-policies"] == [name]
        ((limit, state),) = fields(kong, headers.RATE_LIMIT)
        assert limit == name
        assert state["r"] == 0
        assert name in [policy for policy, _ in fields(kong, headers.RATE_LIMIT_POLICY)]
        # the draft: Retry-After should not point to a moment before the reset
        assert int(kong.answer[headers.RETRY_AFTER]) >= state["t"] > 0
        assert problem["limit"]["retry_after_seconds"] == int(kong.answer[headers.RETRY_AFTER])
        assert problem["code"] in {"rate_limited", "quota_exceeded"}

    def test_are_integers_and_strings_that_may_stand_in_structured_fields(self, project, call):
        account = project(grant=grant(windows=(Window(1, 250),), quota=None), quota_units=7)
        for _ in range(2):
            kong = call(account.text)
            for name in (headers.RATE_LIMIT, headers.RATE_LIMIT_POLICY):
                for policy, parameters in fields(kong, name):
                    assert isinstance(policy, str)
                    assert all(isinstance(value, int) and value >= 0 for value in parameters.values())
                    assert parameters.get("w", 1) > 0


class TestSpendCapAnswer:
    def refused(self, project, call, **changes):
        cap = SpendCap(amount_minor=500, currency="usd", ceiling_units=1)
        account = project(grant=grant(windows=(), quota=None, spend_cap=cap, **changes))
        assert call(account.text).served
        return call(account.text)

    def test_says_whose_cap_it_is_and_where_to_raise_it(self, project, call):
        kong = self.refused(project, call)
        assert kong.status == 429
        problem = kong.problem
        assert problem["code"] == "spend_cap_reached"
        assert problem["title"] == "Spend cap reached"
        assert problem["billing_url"] == "https://example.com/billing"
        assert problem["detail"].endswith("Raise it at https://example.com/billing.")
        assert problem["limit"]["name"] == "spend-cap"
        assert "upgrade" not in problem
        assert int(kong.answer[headers.RETRY_AFTER]) > 60

    def test_gives_no_link_where_none_is_known(self, project, call):
        problem = self.refused(project, call, upgrade=None).problem
        assert problem["billing_url"] is None
        assert "{" not in problem["detail"]
        assert "http" not in problem["detail"]

    def test_shows_an_amount_of_money_as_no_limit_of_calls(self, project, call):
        cent = MeterPrice("requests", (PriceStep(above=0, base_micro=0, unit_micro=1_000_000),))
        cap = SpendCap(500, "usd", usage_minor=1, prices=(cent,), reserves={"forecast": {"requests": 1}})
        account = project(grant=grant(windows=(Window(9, 60_000),), quota=None, spend_cap=cap))
        assert call(account.text).served
        kong = call(account.text)
        assert kong.code == "spend_cap_reached"
        assert (kong.problem["limit"]["limit"], kong.problem["limit"]["unit"]) == (500, "minor-units")
        assert kong.problem["violated-policies"] == ["spend-cap"]
        assert fields(kong, headers.RATE_LIMIT_POLICY) == [("per-minute", {"q": 9, "w": 60})]
        assert not {headers.LIMIT, headers.REMAINING, headers.RESET, headers.RATE_LIMIT} & set(kong.answer)
        assert int(kong.answer[headers.RETRY_AFTER]) > 60

    def test_keeps_a_path_before_the_portal(self, project, call):
        better = Upgrade("growth", "Growth", "https://example.com/portal/upgrade?product=weather&plan=growth")
        assert self.refused(project, call, upgrade=better).problem["billing_url"] == (
            "https://example.com/portal/billing"
        )


KEY_ONLY = f'Key realm="{PRODUCT}"'
BEARER = f'Key realm="{PRODUCT}", Bearer realm="{PRODUCT}"'


class TestChallenge:
    @pytest.mark.parametrize(
        ("sent", "code", "challenge"),
        [
            ({}, "no_key", BEARER),
            ({"apikey": "nonsense"}, "malformed_key", f'{BEARER}, error="invalid_token"'),
            ({"apikey": ["a", "b"]}, "ambiguous_key", f'{BEARER}, error="invalid_request"'),
        ],
    )
    def test_of_the_unidentified(self, call, sent, code, challenge):
        kong = call(headers=sent)
        assert (kong.status, kong.code) == (401, code)
        assert kong.answer["WWW-Authenticate"] == challenge

    def test_names_no_bearer_where_none_is_taken(self, call):
        assert call(config={"bearer": False}).answer["WWW-Authenticate"] == KEY_ONLY

    def test_of_a_revoked_key(self, project, call):
        account = project()
        account.change_key(status=KeyStatus.REVOKED)
        assert call(account.text).answer["WWW-Authenticate"] == f'{BEARER}, error="invalid_token"'

    def test_of_an_expired_key(self, project, call):
        kong = call(project(expires_at_ms=now_ms() - 1).text)
        assert kong.answer["WWW-Authenticate"] == f'{BEARER}, error="invalid_token"'

    @pytest.mark.parametrize(
        ("status", "changes", "config"),
        [
            (402, {"grant": grant(payment_due=True)}, {}),
            (403, {}, {"api_product": PRODUCT, "entitlement": "premium"}),
            (403, {"ip_ranges": ("203.0.113.0/24",)}, {}),
        ],
    )
    def test_names_no_error_where_another_key_of_the_account_would_not_help(
        self, project, call, status, changes, config
    ):
        kong = call(project(**changes).text, config=config)
        assert kong.status == status
        assert kong.answer["WWW-Authenticate"] == BEARER

    def test_of_a_suspended_account(self, project, call):
        account = project()
        account.change_account(status=AccountStatus.SUSPENDED)
        kong = call(account.text)
        assert (kong.status, kong.answer["WWW-Authenticate"]) == (403, BEARER)

    def test_stands_on_no_other_status(self, project, call):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        assert "WWW-Authenticate" not in call(account.text).answer
        assert "WWW-Authenticate" not in call(account.text).answer

    def test_of_km_plan_limit_says_nothing_of_bearer_tokens(self, project, worker):
        account = project()
        account.change_key(status=KeyStatus.REVOKED)
        kong = FakeKong()
        kong.shared["km_key_hash"] = account.key_hash
        km_plan_limit.Plugin({"api_product": PRODUCT}).access(kong)
        assert (kong.code, kong.answer["WWW-Authenticate"]) == ("key_revoked", KEY_ONLY)


LANGUAGES = [
    (None, "en"),
    ("", "en"),
    ("de", "de"),
    ("de-CH", "de"),
    ("DE-ch-1996", "de"),
    ("de-x-internal", "de"),
    ("fr;q=0.5, es;q=0.7", "es"),
    ("fr, es", "fr"),
    ("it, fr;q=0.2", "fr"),
    ("it, pt-BR", "en"),
    ("*", "en"),
    ("*, fr;q=0.1", "fr"),
    ("de;q=0, fr;q=0.1", "fr"),
    ("de;q=0", "en"),
    ("de;q=2", "en"),
    ("fr;q=0.1, de;q=0.0", "fr"),
    ("de; q=0.8 , fr ; q=0.9", "fr"),
    ("nonsense;;q=,,=;q=x", "en"),
    (["it", "es"], "es"),
    ("x" * 10_000, "en"),
    ("it," * 15 + "de", "de"),
    ("\udcff, fr", "fr"),
    ("d", "en"),
    ("de" + "-" * 8000, "de"),
    ("a-" * 4000, "en"),
]


class TestLanguage:
    @pytest.mark.parametrize(("accepted", "language"), LANGUAGES)
    def test_is_looked_up_as_rfc_4647_says(self, accepted, language):
        messages = load_messages()
        assert [messages.choose(accepted) for _ in range(2)] == [language] * 2

    @pytest.mark.parametrize(
        "accepted", ["a-" * 4000, ["-" * 8000] * 4, ",".join(["de-x-y-z-1-2-3-4-5-6-7"] * 700)]
    )
    def test_takes_few_steps_whatever_is_asked_for(self, accepted):
        looked_up = []

        class Languages(dict):
            def __contains__(self, tag):
                looked_up.append(tag)
                return False

        messages = load_messages()
        messages.by_language = Languages(messages.by_language)
        assert messages.choose(accepted) == DEFAULT_LANGUAGE
        assert 0 < len(looked_up) <= 200

    @pytest.mark.parametrize("language", SHIPPED)
    def test_is_told_with_the_answer(self, call, language):
        kong = call(headers={"accept-language": language})
        assert kong.answer["Content-Language"] == language
        assert kong.answer["Vary"] == "Accept-Language"
        english = call()
        assert english.answer["Content-Language"] == DEFAULT_LANGUAGE
        assert (kong.problem["title"] == english.problem["title"]) == (language == DEFAULT_LANGUAGE)
        assert kong.problem["code"] == "no_key"

    def test_holds_for_limits_too(self, project, call):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        call(account.text)
        kong = call(account.text, headers={"accept-language": "de-AT, en;q=0.5"})
        assert kong.problem["detail"] == "Das Limit per-minute erlaubt 1 in 60 s."
        assert kong.answer["Content-Language"] == "de"

    def test_of_km_plan_limit_is_asked_for_when_it_refuses(self, project, worker):
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        for _ in range(2):
            kong = FakeKong({"apikey": account.text, "accept-language": "es"})
            for plugin in (km_key_auth, km_plan_limit):
                plugin.Plugin({"api_product": PRODUCT}).access(kong)
        assert kong.answer["Content-Language"] == "es"
        assert kong.names[-3:] == ["ctx.shared.get", "request.get_header", "response.exit"]

    def test_costs_a_served_call_nothing(self, project, call):
        kong = call(project().text, headers={"accept-language": "de"})
        assert "Vary" not in kong.answer
        assert "request.get_header" not in kong.names

    def test_is_complete_in_every_file_that_ships(self):
        messages = load_messages()
        assert tuple(sorted(messages.by_language)) == SHIPPED
        english = messages.by_language["en"]
        assert set(english) == {outcome.value for outcome in REFUSALS}
        for language in SHIPPED:
            texts = messages.by_language[language]
            assert {name: sorted(own) for name, own in texts.items()} == {
                name: sorted(own) for name, own in english.items()
            }
            same = [name for name in texts if texts[name]["detail"] == english[name]["detail"]]
            assert same == ([] if language != "en" else list(english))


class TestOwnMessages:
    def test_go_over_ours_text_by_text_and_add_languages(self, tmp_path, start_worker, redis_url, call):
        (tmp_path / "en.toml").write_text('[no_key]\ndetail = "Ask sales@example.com for a key."\n')
        (tmp_path / "pt-BR.toml").write_text('[no_key]\ntitle = "Chave obrigatória"\ndetail = "Envie a chave."\n')
        (tmp_path / "README").write_text("not a language")
        start_worker(redis_url, KM_MESSAGES_DIR=str(tmp_path))
        english = call()
        assert english.problem["title"] == "API key required"
        assert english.problem["detail"] == "Ask sales@example.com for a key."
        own = call(headers={"accept-language": "pt-br"})
        assert (own.problem["title"], own.answer["Content-Language"]) == ("Chave obrigatória", "pt-BR")

    def test_that_lack_an_outcome_leave_it_in_english_and_say_so(self, tmp_path, start_worker, redis_url, call):
        (tmp_path / "pt.toml").write_text('[no_key]\ntitle = "Chave obrigatória"\n')
        start_worker(redis_url, KM_MESSAGES_DIR=str(tmp_path))
        kong = call("nonsense", headers={"accept-language": "pt"})
        assert (kong.problem["title"], kong.answer["Content-Language"]) == ("Malformed API key", "en")

    def test_a_new_detail_is_not_hidden_by_variants_of_the_old_one(
        self, tmp_path, start_worker, redis_url, call, project
    ):
        (tmp_path / "en.toml").write_text('[rate_limited]\ndetail = "Slow down."\n')
        start_worker(redis_url, KM_MESSAGES_DIR=str(tmp_path))
        account = project(grant=grant(windows=(Window(1, 60_000),)))
        call(account.text)
        assert call(account.text).problem["detail"] == "Slow down."

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("en.toml", b"[no_key", "en.toml: Expected"),
            ("en.toml", b"\xff\xfe", "not UTF-8"),
            ("en.toml", b'[nokey]\ntitle = "x"', r"\[nokey\]: no such outcome"),
            ("en.toml", b'no_key = "x"', r"\[no_key\]: a table is required"),
            ("en.toml", b'[no_key]\nheading = "x"', "heading: no such text; there are title, detail"),
            ("en.toml", b"[no_key]\ntitle = 3", "title: a text is required"),
            ("en.toml", b'[no_key]\ntitle = " "', "title: a text is required"),
            ("en.toml", b'[no_key]\ntitle = "{key}"', "nothing is known by the name {key}"),
            ("en.toml", b'[rate_limited]\ndetail_window = "{limit.__class__}"', "nothing is known by the name"),
            ("en.toml", b'[rate_limited]\ndetail_window = "{limit:>9999999}"', "must stand alone"),
            ("en.toml", b'[no_key]\ntitle = "{"', "title: "),
            ("german!.toml", b"", "no language tag"),
        ],
    )
    def test_that_cannot_be_used_stop_the_start_and_say_why(self, tmp_path, name, content, says):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MessagesError, match=f"^KM_MESSAGES_DIR: .*{says}"):
            load_messages(tmp_path)

    def test_from_a_directory_that_is_not_there_stop_the_start(self, tmp_path, start_worker, redis_url):
        with pytest.raises(MessagesError, match=r"^KM_MESSAGES_DIR"):
            start_worker(redis_url, KM_MESSAGES_DIR=str(tmp_path / "missing"))


class TestEveryRefusal:
    def test_has_an_answer_in_every_language(self, worker: Worker):
        assert worker is worker_module.current_worker()
        for outcome in REFUSALS:
            for language in SHIPPED:
                wording = worker.answers._messages.wording(outcome, language)
                assert wording.language == language
                assert wording.texts["title"]

    def test_is_rendered_once_for_each_language(self, worker, call):
        bodies = [call(headers={"accept-language": "de"}).body for _ in range(3)]
        assert bodies[0] is bodies[1] is bodies[2]

    def test_shows_no_text_of_the_callers(self, call):
        kong = call("<script>", headers={"accept-language": '"><script>'})
        assert b"script" not in kong.body
        assert "script" not in str(kong.answer)

    def test_names_the_account_nowhere(self, project: Projected, call):
        account = project(scopes=("reports",))
        kong = call(account.text)
        assert "Acme" not in kong.body.decode()
        assert account.key.id not in kong.body.decode()
