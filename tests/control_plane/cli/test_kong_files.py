"""Reading what Kong knows: every form of file, and nothing of a key in what comes out."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from control_plane.catalog.plan_file import parse_plan_file
from control_plane.entrypoints.commands.kong_credentials import (
    KongFileError,
    load_kong_file,
    read_credentials,
)
from control_plane.entrypoints.commands.kong_limits import suggest_plans
from gateway_contract.api_keys import generate_api_key, hash_api_key
from gateway_contract.modes import Mode
from kong_plugins.parts.presented_key import key_hash_of

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ACME, GLOBEX = "acme-key-0123456789abcdef", "globex99"

DECLARATIVE = f"""
_format_version: "3.0"
consumers:
  - username: acme
    custom_id: crm-1
    keyauth_credentials:
      - key: {ACME}
        tags: [production, eu]
  - username: globex
    keyauth_credentials:
      - key: {GLOBEX}
        ttl: 3600
  - username: idle
"""
FLAT = f"""
_format_version: "3.0"
consumers:
  - {{username: acme, custom_id: crm-1, id: 11111111-1111-4111-8111-111111111111}}
  - {{username: globex}}
  - {{username: idle}}
keyauth_credentials:
  - {{consumer: acme, key: {ACME}, tags: [production, eu]}}
  - {{consumer: {{username: globex}}, key: {GLOBEX}, ttl: 3600}}
"""
DECK = f"""
_format_version: "3.0"
_info: {{select_tags: [team], defaults: {{}}}}
_konnect: {{control_plane_name: default}}
consumers:
- custom_id: crm-1
  username: acme
  keyauth_credentials:
  - key: {ACME}
    tags:
    - production
    - eu
- username: globex
  keyauth_credentials:
  - key: {GLOBEX}
    ttl: 3600
- username: idle
"""
KEY_AUTHS = {
    "data": [
        {"id": "k1", "key": ACME, "consumer": {"id": "c1"}, "tags": ["production", "eu"], "created_at": 1},
        {"id": "k2", "key": GLOBEX, "consumer": {"id": "c2"}, "tags": None, "ttl": 3600},
    ],
    "next": None,
}
CONSUMERS = {
    "data": [
        {"id": "c1", "username": "acme", "custom_id": "crm-1"},
        {"id": "c2", "username": "globex", "custom_id": None},
        {"id": "c3", "username": "idle", "custom_id": None},
    ],
    "next": None,
}


def read(*texts, mode="live"):
    return read_credentials([parsed(text) for text in texts], mode=mode, now=NOW)


def parsed(text):
    with TemporaryDirectory() as directory:
        path = Path(directory) / "kong.yml"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return load_kong_file(path)


def with_key(key):
    return f"consumers:\n  - username: acme\n    keyauth_credentials: [{{key: {key}}}]\n"


class TestForms:
    @pytest.mark.parametrize(
        "texts",
        [(DECLARATIVE,), (FLAT,), (DECK,), (KEY_AUTHS, CONSUMERS), (CONSUMERS, KEY_AUTHS)],
        ids=["declarative", "flat", "deck", "admin-api", "admin-api-other-order"],
    )
    def test_every_form_says_the_same(self, texts):
        found = read(*texts)
        acme, globex = found.accounts
        assert (acme.external_id, acme.name, acme.refused) == ("crm-1", "acme", "")
        assert (globex.external_id, globex.name, globex.refused) == ("globex", "globex", "")
        (strong,), (weak,) = acme.keys, globex.keys
        assert (strong.key_hash, strong.name) == (hash_api_key(ACME), "production, eu")
        assert (strong.last_characters, strong.weak, strong.expires_at) == (ACME[-4:], False, None)
        assert (weak.key_hash, weak.last_characters, weak.weak) == (hash_api_key(GLOBEX), None, True)
        assert weak.expires_at == NOW + timedelta(hours=1)
        assert found.consumers_without_keys == 1
        assert found.unnamed == 0

    def test_without_the_consumers_list_they_are_known_by_id(self):
        found = read(KEY_AUTHS)
        assert [account.external_id for account in found.accounts] == ["c1", "c2"]
        assert found.unnamed == 2

    def test_json_is_read_like_yaml(self):
        document = {
            "_format_version": "3.0",
            "consumers": [{"username": "a", "keyauth_credentials": [{"key": ACME}]}],
        }
        assert [account.external_id for account in read(document).accounts] == ["a"]

    def test_no_key_is_in_what_is_read(self):
        assert ACME not in repr(read(DECLARATIVE))
        assert GLOBEX not in repr(read(DECLARATIVE))

    def test_keys_of_our_form_keep_their_mode(self):
        (account,) = read(with_key(generate_api_key(Mode.TEST))).accounts
        assert (account.keys[0].mode, account.keys[0].ours) == ("test", True)
        (account,) = read(with_key(ACME), mode="test").accounts
        assert (account.keys[0].mode, account.keys[0].ours) == ("test", False)


class TestRefused:
    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("12345678", "quotes"),
            ('"${{ env \\"DECK_KEY\\" }}"', "refers to a key"),
            ('"{vault://env/acme-key}"', "refers to a key"),
            ("short", "8 to 512"),
            ('"with a space in it"', "8 to 512"),
            ('"schlüssel-0123456789"', "8 to 512"),
            ("null", "no key"),
        ],
    )
    def test_keys_that_cannot_be_used(self, key, reason):
        (account,) = read(with_key(key)).accounts
        assert reason in account.refused
        assert account.keys == []

    @pytest.mark.parametrize("key", ["a" * 8, "a" * 512, "a" * 7, "a" * 513, "!~Aa09-_", "has space"])
    def test_the_plugins_judge_a_keys_form_alike(self, key):
        (account,) = read(with_key(f'"{key}"')).accounts
        assert (account.refused == "") is (key_hash_of(key, imported_keys=True) is not None)

    def test_a_key_of_two_consumers_refuses_both(self):
        text = FLAT + f"  - {{consumer: globex, key: {ACME}}}\n"
        assert [bool(account.refused) for account in read(text).accounts] == [True, True]

    def test_a_name_of_two_consumers_refuses_both(self):
        text = f"""
consumers:
  - {{username: acme, keyauth_credentials: [{{key: {ACME}}}]}}
  - {{username: other, custom_id: acme, keyauth_credentials: [{{key: {GLOBEX}}}]}}
"""
        assert ["same username" in account.refused for account in read(text).accounts] == [True, True]

    def test_a_key_without_a_consumer(self):
        (account,) = read(f"keyauth_credentials: [{{key: {ACME}}}]").accounts
        assert account.refused

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (f"consumers:\n  - key: '{ACME}\n", "is not YAML"),
            (f'{{"data": [{{"key": "{ACME}", }}]}}', "line 1 is not JSON"),
            ("just: this", "is it Kong's"),
            (json.dumps(KEY_AUTHS | {"next": "/key-auths?offset=x"}), "one page"),
            (json.dumps({"data": [{"id": "x"}]}), "no list of"),
        ],
    )
    def test_files_of_another_kind_without_showing_a_line_of_them(self, text, words):
        with pytest.raises(KongFileError, match=words) as caught:
            read(text)
        assert ACME not in str(caught.value)
        assert caught.value.__cause__ is None


LIMITS = """
_format_version: "3.0"
plugins:
  - name: rate-limiting
    config: {minute: 600, policy: local, fault_tolerant: false}
  - name: cors
services:
  - name: weather
    url: http://127.0.0.1:9001
    routes:
      - name: forecast
        paths: [/forecast]
        plugins:
          - name: rate-limiting
            config: {second: 5, hour: 10000, month: 100000, policy: redis, hide_client_headers: true}
consumers:
  - username: acme
    plugins:
      - name: rate-limiting
        config: {day: 50.5, limit_by: credential, policy: cluster}
routes:
  - name: open
    plugins:
      - name: rate-limiting
        config: {second: 1, limit_by: ip}
"""


class TestSuggestions:
    def test_name_limits_and_quota_for_each_place(self):
        found = {one.place: one for one in suggest_plans([parsed(LIMITS)])}
        assert list(found) == [
            "rate-limiting on every route",
            "rate-limiting on route forecast",
            "rate-limiting on route open",
            "rate-limiting on consumer acme",
        ]
        assert found["rate-limiting on route forecast"].plan_lines == (
            "limits:",
            "  - { limit: 5, per: second }",
            "  - { limit: 10000, per: hour }",
            "quota: { units: 100000, on_exceed: refuse } # or charge, with a price",
        )
        assert found["rate-limiting on every route"].plan_lines[-1] == "redis_down: closed"
        assert found["rate-limiting on consumer acme"].plan_lines == ("limits:", "  - { limit: 50, per: day }")
        assert found["rate-limiting on route open"].plan_lines == ()

    def test_say_what_differs(self):
        found = {one.place: " ".join(one.differences) for one in suggest_plans([parsed(LIMITS)])}
        assert "billing period" in found["rate-limiting on route forecast"]
        assert "read before a call" in found["rate-limiting on route forecast"]
        assert "N nodes" in found["rate-limiting on every route"]
        assert "km keys update" in found["rate-limiting on consumer acme"]
        assert "decimals" in found["rate-limiting on consumer acme"]
        assert "no place in a plan" in found["rate-limiting on route open"]

    def test_can_be_put_into_a_plan_file(self):
        product = "{code: weather, name: Weather, service: weather, routes: [forecast]}"
        for number, suggestion in enumerate(suggest_plans([parsed(LIMITS)])):
            lines = "\n".join(f"    {line}" for line in suggestion.text.splitlines())
            plan = f"  - code: p{number}\n    name: P\n    api_product: weather\n{lines}"
            assert parse_plan_file(f"api_products: [{product}]\nplans:\n{plan}").plans
