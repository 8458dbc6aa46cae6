"""Whatever is wrong with a body, the answer names the field and nothing changes."""

import asyncio
import base64
import json
from datetime import datetime

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.control_plane.builders import a_key, a_published_plan, a_subscription, an_account

PRODUCT = {"code": "maps", "name": "Maps", "service": "weather", "routes": ["heavy"]}
KEY = {"name": "server", "mode": "live"}
TABLES = (
    "accounts",
    "api_keys",
    "api_products",
    "subscriptions",
    "api_tokens",
    "plan_versions",
    "audit_log",
    "outbox",
)

# path, a body that is right, what is changed in it (a field set, or ... to remove it), the field that is named
CASES = [
    ("POST /accounts", {"name": "Acme"}, {"name": ...}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"name": ""}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"name": "   "}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"name": 7}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"name": None}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"name": "x" * 201}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"name": "a\x00b"}, "name"),
    ("POST /accounts", {"name": "Acme"}, {"email": "nobody"}, "email"),
    ("POST /accounts", {"name": "Acme"}, {"currency": "usd"}, "currency"),
    ("POST /accounts", {"name": "Acme"}, {"currency": "XXX"}, "currency"),
    ("POST /accounts", {"name": "Acme"}, {"time_zone": "Mars/Olympus"}, "time_zone"),
    ("POST /accounts", {"name": "Acme"}, {"plan": "starter"}, "plan"),
    ("PATCH /accounts/{account}", {"name": "Acme"}, {"name": None}, "name"),
    ("PATCH /accounts/{account}", {"name": "Acme"}, {"status": "active"}, "status"),
    ("POST /accounts/{account}/keys", KEY, {"mode": "sandbox"}, "mode"),
    ("POST /accounts/{account}/keys", KEY, {"mode": ...}, "mode"),
    ("POST /accounts/{account}/keys", KEY, {"scopes": []}, "scopes"),
    ("POST /accounts/{account}/keys", KEY, {"scopes": ["full", "read_only"]}, "scopes"),
    ("POST /accounts/{account}/keys", KEY, {"scopes": ["read_only", "NO"]}, "scopes[1]"),
    ("POST /accounts/{account}/keys", KEY, {"scopes": "full"}, "scopes"),
    ("POST /accounts/{account}/keys", KEY, {"windows": [{"limit": 0, "window_ms": 1000}]}, "windows[0].limit"),
    ("POST /accounts/{account}/keys", KEY, {"windows": [{"limit": "5", "window_ms": 1000}]}, "windows[0].limit"),
    ("POST /accounts/{account}/keys", KEY, {"windows": [{"limit": True, "window_ms": 1000}]}, "windows[0].limit"),
    ("POST /accounts/{account}/keys", KEY, {"windows": [{"limit": 5}]}, "windows[0].window_ms"),
    ("POST /accounts/{account}/keys", KEY, {"windows": [{"limit": 5, "window_ms": 1}]}, "windows[0].window_ms"),
    ("POST /accounts/{account}/keys", KEY, {"windows": [{"limit": 5, "window_ms": 1000}] * 2}, "windows[1]"),
    ("POST /accounts/{account}/keys", KEY, {"quota_units": 2**60}, "quota_units"),
    ("POST /accounts/{account}/keys", KEY, {"quota_units": 1.5}, "quota_units"),
    ("POST /accounts/{account}/keys", KEY, {"ip_ranges": ["10.0.0.0/8", "nowhere"]}, "ip_ranges[1]"),
    ("POST /accounts/{account}/keys", KEY, {"ip_ranges": ["10.0.0.1/8"]}, "ip_ranges[0]"),
    ("POST /accounts/{account}/keys", KEY, {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ("POST /accounts/{account}/keys", KEY, {"expires_at": "2027-01-01T00:00:00"}, "expires_at"),
    ("POST /accounts/{account}/keys", KEY, {"expires_at": 1_800_000_000}, "expires_at"),
    ("POST /accounts/{account}/keys", KEY, {"expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
    ("PATCH /keys/{key}", {"name": "x"}, {"scopes": None}, "scopes"),
    ("PATCH /keys/{key}", {"name": "x"}, {"mode": "test"}, "mode"),
    ("POST /keys/{key}/rotate", {}, {"overlap_seconds": -1}, "overlap_seconds"),
    ("POST /keys/{key}/rotate", {}, {"overlap_seconds": 91 * 86_400}, "overlap_seconds"),
    ("POST /products", PRODUCT, {"code": "Maps"}, "code"),
    ("POST /products", PRODUCT, {"routes": []}, "routes"),
    ("POST /products", PRODUCT, {"routes": ["a b"]}, "routes[0]"),
    ("POST /products", PRODUCT, {"routes": ["heavy", "heavy"]}, "routes[1]"),
    ("POST /products", PRODUCT, {"service": ""}, "service"),
    ("POST /products", PRODUCT, {"route_units": {"heavy": 0}}, "route_units.heavy"),
    ("POST /products", PRODUCT, {"route_units": {"other": 5}}, "route_units.other"),
    ("POST /products", PRODUCT, {"endpoints": [{"method": "FETCH", "path_template": "/"}]}, "endpoints[0].method"),
    ("POST /products", PRODUCT, {"unit_headers": {"tokens": "x y"}}, "unit_headers.tokens"),
    ("PATCH /products/weather", {"name": "x"}, {"routes": None}, "routes"),
    ("PATCH /products/weather", {"name": "x"}, {"code": "other"}, "code"),
    ("POST /accounts/{account}/subscriptions", {"plan": "starter"}, {"plan": ...}, "plan"),
    ("POST /accounts/{account}/subscriptions", {"plan": "starter"}, {"plan": ["starter"]}, "plan"),
    ("POST /accounts/{account}/subscriptions", {"plan": "starter"}, {"anchor_at": "soon"}, "anchor_at"),
    (
        "POST /accounts/{account}/subscriptions",
        {"plan": "starter"},
        {"anchor_at": "2026-11-01T00:30:00Z"},
        "anchor_at",
    ),
    (
        "POST /accounts/{account}/subscriptions",
        {"plan": "starter"},
        {"allow_unlisted": "yes"},
        "allow_unlisted",
    ),
    ("POST /subscriptions/{subscription}/change", {"plan": "starter"}, {"at": "later"}, "at"),
    ("POST /subscriptions/{subscription}/cancel", {"at": "now"}, {"at": ...}, "at"),
    ("POST /subscriptions/{subscription}/override", {}, {"quota_units": 0}, "quota_units"),
    ("POST /subscriptions/{subscription}/override", {}, {"windows": [{}]}, "windows[0].limit"),
    ("POST /tokens", {"name": "ci", "role": "admin"}, {"role": "god"}, "role"),
    ("POST /tokens", {"name": "ci", "role": "admin"}, {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ("POST /plans/apply", {"plan_file": ""}, {"plan_file": 7}, "plan_file"),
    ("POST /plans/apply", {"plan_file": ""}, {"plan_file": "plans: 7"}, "plans"),
    ("POST /plans/diff", {"plan_file": ""}, {"documents": []}, "documents"),
]


NOT_JSON_OBJECTS = [
    (b"", "application/json"),
    (b"{", "application/json"),
    (b"[]", "application/json"),
    (b"null", "application/json"),
    (b'"text"', "application/json"),
    (b"\xff\xfe", "application/json"),
    (b'{"name": "\\ud800"}', "application/json"),
    (b'{"name": NaN}', "application/json"),
    (b"[" * 100_000, "application/json"),
    (b"name=Acme", "application/x-www-form-urlencoded"),
    (b'{"name": "Acme"}', "text/plain"),
]
WRONG_PARAMETERS = [
    ("/accounts/acc_1", "account_id"),
    ("/accounts/acc_%00", "account_id"),
    ("/keys/acc_01234567890123456789012345", "key_id"),
    ("/plans/UPPER", "code"),
    ("/accounts?limit=0", "limit"),
    ("/accounts?limit=201", "limit"),
    ("/accounts?limit=ten", "limit"),
    ("/accounts?colour=red", "colour"),
    ("/accounts?cursor=abc", "cursor"),
    ("/accounts?cursor=WyJ4Il0", "cursor"),
    ("/accounts?search=%00", "search"),
    ("/accounts?limit=1&limit=2", "limit"),
    ("/plans?product=NO", "product"),
    ("/usage?group_by=colour", "group_by[0]"),
    ("/usage?start=2026-11-01T00:30:00Z", "start"),
    ("/usage?start=2026-11-02T00:00:00Z&end=2026-11-01T00:00:00Z", "end"),
    ("/usage?start=2020-01-01T00:00:00Z&end=2026-11-01T00:00:00Z", "start"),
    ("/usage?start=yesterday", "start"),
]
NOT_THERE = [
    (f"/accounts/acc_{'0' * 26}", "account_not_found"),
    (f"/accounts/acc_{'0' * 26}/keys", "account_not_found"),
    (f"/accounts/acc_{'0' * 26}/usage", "account_not_found"),
    (f"/accounts/acc_{'0' * 26}/events", "account_not_found"),
    (f"/accounts/acc_{'0' * 26}/subscriptions", "account_not_found"),
    (f"/accounts/acc_{'0' * 26}/invoices/preview/weather", "account_not_found"),
    (f"/keys/key_{'0' * 26}", "api_key_not_found"),
    (f"/subscriptions/sub_{'0' * 26}", "subscription_not_found"),
    ("/plans/none", "plan_not_found"),
    ("/products/none", "api_product_not_found"),
    ("/nothing", "not_found"),
]


@pytest.fixture
async def names(sessions: async_sessionmaker[AsyncSession]) -> dict[str, str]:
    """Ids of things that are there, by kind."""
    now = datetime.fromisoformat("2026-11-23T08:00:00Z")
    async with sessions() as session, session.begin():
        await a_published_plan(session, now=now, code="starter")
        subscriber = await an_account(session, now=now)
        subscription = await a_subscription(session, subscriber, now=now)
        account = await an_account(session, now=now)
        key = await a_key(session, account, now=now)
    return {"account": account.id, "subscription": subscription.id, "key": key.key.id}


async def state_of(sessions: async_sessionmaker[AsyncSession]) -> dict[str, str]:
    """A fingerprint of every table that a body could change."""
    async with sessions() as session:
        rows = {}
        for table in TABLES:
            columns = "id, name, role, revoked_at" if table == "api_tokens" else "*"
            lines = f"SELECT t::text AS line FROM (SELECT {columns} FROM {table}) t"
            statement = f"SELECT md5(coalesce(string_agg(line, '|' ORDER BY line), '')) FROM ({lines}) AS lines"
            rows[table] = await session.scalar(text(statement))
        return rows


def fields_of(answer: httpx.Response) -> list[str]:
    return [error["field"] for error in answer.json()["errors"]]


class TestBadBodies:
    async def test_the_field_is_named_and_nothing_changes(self, client: httpx.AsyncClient, sessions, names):
        # one database for the whole table: nothing changes in it
        before = await state_of(sessions)
        for route, right, change, field in CASES:
            method, _, path = route.format(**names).partition(" ")
            body = {name: value for name, value in (right | change).items() if value is not ...}
            answer = await client.request(method, f"/admin/v1{path}", json=body)
            case = (route, change, answer.text)
            assert answer.status_code == 422, case
            assert answer.headers["content-type"] == "application/problem+json", case
            assert answer.json()["code"] == "validation_failed", case
            assert field in fields_of(answer), case
        assert await state_of(sessions) == before

    async def test_every_wrong_field_is_named_at_once(self, client: httpx.AsyncClient, names):
        body = {"mode": "x", "windows": [{"limit": -1, "window_ms": 0}], "colour": "red"}
        answer = await client.post(f"/admin/v1/accounts/{names['account']}/keys", json=body)
        assert set(fields_of(answer)) == {"name", "mode", "windows[0].limit", "windows[0].window_ms", "colour"}

    async def test_an_answer_never_repeats_what_was_sent(self, client: httpx.AsyncClient, names):
        secret = "km_live_" + "a" * 38
        answer = await client.post(
            f"/admin/v1/accounts/{names['account']}/keys", json={"name": 1, "mode": secret, secret: secret}
        )
        assert answer.status_code == 422
        assert "errors" in answer.json()
        assert f'"{secret}' not in answer.text.replace(f'"field":"{secret}"', "")

    async def test_says_what_must_be_true(self, client: httpx.AsyncClient, names):
        body = {"name": "x", "mode": "live", "windows": [{"limit": -1, "window_ms": 1000}]}
        answer = await client.post(f"/admin/v1/accounts/{names['account']}/keys", json=body)
        message = "must be greater than or equal to 1"
        assert answer.json()["errors"] == [{"field": "windows[0].limit", "message": message}]


class TestBadRequests:
    async def test_what_is_no_json_object_is_refused(self, client: httpx.AsyncClient, sessions):
        for content, content_type in NOT_JSON_OBJECTS:
            headers = {"content-type": content_type}
            answer = await client.post("/admin/v1/accounts", content=content, headers=headers)
            assert answer.status_code in {400, 422}, (content, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        async with sessions() as session:
            assert await session.scalar(text("SELECT count(*) FROM accounts")) == 0

    async def test_a_body_that_is_too_large_is_refused(self, client: httpx.AsyncClient):
        answer = await client.post("/admin/v1/accounts", content=b" " * (5 * 1024 * 1024))
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")

    async def test_wrong_parameters_are_named(self, client: httpx.AsyncClient):
        for path, field in WRONG_PARAMETERS:
            answer = await client.get(f"/admin/v1{path}")
            assert answer.status_code == 422, (path, answer.text)
            assert field in fields_of(answer), (path, answer.text)

    async def test_what_is_not_there_is_said_to_be_not_there(self, client: httpx.AsyncClient):
        for path, code in NOT_THERE:
            answer = await client.get(f"/admin/v1{path}")
            assert (path, answer.status_code, answer.json()["code"]) == (path, 404, code)

    async def test_a_wrong_method_is_refused_in_our_form(self, client: httpx.AsyncClient):
        answer = await client.delete("/admin/v1/accounts")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


class TestConflicts:
    async def test_have_codes_of_their_own(self, client: httpx.AsyncClient, names, sessions):
        await client.post(f"/admin/v1/keys/{names['key']}/revoke")
        subscription = f"/admin/v1/subscriptions/{names['subscription']}"
        await client.post(f"{subscription}/cancel", json={"at": "now"})
        before = await state_of(sessions)
        for path, body, code in (
            ("/products", PRODUCT | {"code": "weather"}, "api_product_code_taken"),
            ("/products", PRODUCT | {"routes": ["weather"]}, "route_taken"),
            (f"/keys/{names['key']}/rotate", {}, "api_key_revoked"),
            (f"/subscriptions/{names['subscription']}/cancel", {"at": "now"}, "subscription_over"),
        ):
            answer = await client.post(f"/admin/v1{path}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert await state_of(sessions) == before

    async def test_a_second_live_subscription_is_refused(self, client: httpx.AsyncClient, names):
        path = f"/admin/v1/accounts/{names['account']}/subscriptions"
        assert (await client.post(path, json={"plan": "starter"})).status_code == 201
        answer = await client.post(path, json={"plan": "starter"})
        assert (answer.status_code, answer.json()["code"]) == (409, "already_subscribed")


class TestPlanFiles:
    async def test_yaml_is_read_as_it_is(self, client: httpx.AsyncClient, sessions):
        before = await state_of(sessions)
        answer = await client.post(
            "/admin/v1/plans/apply",
            content="api_products: []\nplans:\n  - {code: x, price: 1}\n",
            headers={"content-type": "application/yaml; charset=utf-8"},
        )
        assert answer.status_code == 422
        assert "plans[0].price" in fields_of(answer)
        assert await state_of(sessions) == before

    async def test_what_is_no_plan_file_is_refused(self, client: httpx.AsyncClient):
        for content in (b"\xff", b"a: [", b"a: &a [*a, *a]", b"!!python/object:os.system {}"):
            answer = await client.post(
                "/admin/v1/plans/apply", content=content, headers={"content-type": "application/yaml"}
            )
            assert (content, answer.status_code, answer.json()["code"]) == (content, 422, "validation_failed")

    async def test_another_media_type_is_refused(self, client: httpx.AsyncClient):
        answer = await client.post("/admin/v1/plans/apply", content=b"x", headers={"content-type": "text/html"})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")

    async def test_numbers_and_dates_that_cannot_be_are_refused(self, client: httpx.AsyncClient):
        for plan_file in (f"plans: {'9' * 5000}", "plans: 2026-13-45"):
            answer = await client.post(
                "/admin/v1/plans/diff", content=plan_file, headers={"Content-Type": "application/yaml"}
            )
            assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")

    async def test_a_long_one_holds_up_nobody_else(self, client: httpx.AsyncClient):
        text = "plans:\n" + "- {code: a, name: b, api_product: c}\n" * 4000
        headers = {"Content-Type": "application/yaml"}
        long_one = asyncio.create_task(client.post("/admin/v1/plans/diff", content=text, headers=headers))
        answered = 0
        while not long_one.done():
            assert (await client.get("/healthz")).status_code == 200
            answered += 1
            await asyncio.sleep(0.01)
        assert (await long_one).status_code == 422
        assert answered > 10


CURSORS = [
    ["9999-12-31T23:59:59-14:00", "acc_x"],
    ["0001-01-01T00:00:00+14:00", "acc_x"],
    ["2026-01-01T00:00:00Z", "\ud800"],
    [1, "\ud800"],
    [-1, "x"],
    [2**63, "x"],
    [10**400, "x"],
    [True, "x"],
    7,
]


class TestCursors:
    @pytest.mark.parametrize("path", ["accounts", "audit", "unattributed-events"])
    async def test_that_no_list_has_given_out_are_refused(self, client: httpx.AsyncClient, path: str):
        for values in CURSORS:
            cursor = base64.urlsafe_b64encode(json.dumps(values).encode()).decode()
            answer = await client.get(f"/admin/v1/{path}", params={"cursor": cursor})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor"), values
