"""What the API does when it is used rightly, end to end over real stores."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from redis import Redis

from control_plane.admin_api.history import EventHistory
from control_plane.gateway_sync.upgrade_hints import refresh_hints
from control_plane.usage.tables import UsageHourly
from gateway_contract.api_keys import hash_api_key
from gateway_contract.records import decode_account_record
from gateway_contract.redis_names import account_record
from tests.control_plane.admin_api.conftest import NOW

REPOSITORY = Path(__file__).parents[3]
HOUR = NOW.replace(minute=0)
PLANS = (REPOSITORY / "plans.yml").read_text()
YAML = {"content-type": "application/yaml"}


def ok(answer: httpx.Response, status: int = 200) -> dict:
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.fixture
async def subscribed(client: httpx.AsyncClient) -> dict:
    """An account's subscription to the shipped Starter plan."""
    ok(await client.post("/admin/v1/plans/apply", content=PLANS, headers=YAML))
    account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)
    path = f"/admin/v1/accounts/{account['id']}/subscriptions"
    body = {"plan": "starter", "anchor_at": "2026-11-01T00:00:00Z"}
    return ok(await client.post(path, json=body), 201)


@pytest.fixture
async def used(subscribed: dict, sessions) -> dict:
    """The same with an hour of usage: 50,100 billable calls, some refused."""
    key = f"key_{'0' * 26}"
    shared = {
        "account_id": subscribed["account_id"],
        "hour": HOUR,
        "phase_id": subscribed["phases"][0]["id"],
        "product": "weather",
        "mode": "live",
        "key_id": key,
        "bytes_in": 10,
        "bytes_out": 20,
        "latency_ms_sum": 30,
        "gateway_ms_sum": 3,
        "dimensions": {},
        "billable_dimensions": {},
        "revision": 1,
    }
    rows = [
        ("GET /v1/current/{city}", 200, "served", 50_000, 50_000),
        ("GET /v1/forecast", 200, "served", 100, 100),
        ("GET /v1/forecast", 503, "served", 7, 0),
        ("GET /v1/forecast", 429, "rate_limited", 13, 0),
    ]
    async with sessions() as session, session.begin():
        for endpoint, status, outcome, calls, billable in rows:
            session.add(
                UsageHourly(
                    endpoint=endpoint,
                    status=status,
                    outcome=outcome,
                    calls=calls,
                    units=calls,
                    billable_calls=billable,
                    billable_units=billable,
                    **shared,
                )
            )
    return subscribed


class TestPlanFiles:
    async def test_diff_says_what_apply_does(self, client: httpx.AsyncClient, client_of: Callable):
        reader = client_of("read_only")
        planned = ok(await reader.post("/admin/v1/plans/diff", content=PLANS, headers=YAML))
        assert ok(await client.get("/admin/v1/plans"))["items"] == []
        assert ok(await client.post("/admin/v1/plans/apply", content=PLANS, headers=YAML)) == planned
        assert ok(await client.post("/admin/v1/plans/apply", json={"plan_file": PLANS}))["changes"] == []

    async def test_changed_terms_make_a_new_version(self, client: httpx.AsyncClient, subscribed: dict):
        changed = PLANS.replace('"49.00"', '"59.00"')
        ok(await client.post("/admin/v1/plans/apply", content=changed, headers=YAML))
        plan = ok(await client.get("/admin/v1/plans/starter"))
        assert [(v["version"], v["status"]) for v in plan["versions"]] == [(2, "published"), (1, "superseded")]
        assert plan["published"]["prices"][0]["params"] == {"amount": "59.00"}
        pinned = ok(await client.get(f"/admin/v1/subscriptions/{subscribed['id']}"))
        assert pinned["plan_version"] == 1


class TestSubscriptions:
    async def test_say_plan_period_and_phases(self, subscribed: dict):
        assert subscribed["current_period"] == {
            "start": "2026-11-01T00:00:00.000Z",
            "end": "2026-12-01T00:00:00.000Z",
        }
        assert (subscribed["plan"], subscribed["plan_name"], subscribed["api_product"]) == (
            "starter",
            "Starter",
            "weather",
        )

    async def test_plans_by_quote_need_a_word(self, client: httpx.AsyncClient, subscribed: dict):
        path = f"/admin/v1/subscriptions/{subscribed['id']}/change"
        refused = await client.post(path, json={"plan": "enterprise"})
        assert refused.status_code in {403, 409}
        changed = ok(await client.post(path, json={"plan": "enterprise", "allow_unlisted": True}))
        assert changed["plan"] == "enterprise"

    async def test_limits_are_overridden_and_given_back(self, client: httpx.AsyncClient, subscribed: dict):
        path = f"/admin/v1/subscriptions/{subscribed['id']}/override"
        body = {"windows": [{"limit": 100, "window_ms": 1000}], "quota_units": 60_000}
        overridden = ok(await client.post(path, json=body))
        assert (overridden["windows_override"], overridden["quota_units_override"]) == (body["windows"], 60_000)
        partly = ok(await client.post(path, json={"windows": None}))
        assert (partly["windows_override"], partly["quota_units_override"]) == (None, 60_000)

    async def test_a_late_payment_is_noted_and_taken_back(self, client: httpx.AsyncClient, subscribed: dict):
        path = f"/admin/v1/subscriptions/{subscribed['id']}/status"
        for status in ("past_due", "past_due", "paused", "active"):
            assert ok(await client.post(path, json={"status": status}))["status"] == status
        entries = ok(await client.get("/admin/v1/audit", params={"entity_id": subscribed["id"]}))["items"]
        assert [entry["action"] for entry in entries if "past_due" in entry["action"]] == ["subscription.past_due"]

    async def test_steps_that_the_status_machine_lacks_are_refused(
        self, client: httpx.AsyncClient, subscribed: dict
    ):
        path = f"/admin/v1/subscriptions/{subscribed['id']}"
        ok(await client.post(f"{path}/status", json={"status": "paused"}))
        late = await client.post(f"{path}/status", json={"status": "past_due"})
        assert (late.status_code, late.json()["code"]) == (409, "subscription_transition_refused")
        assert (await client.post(f"{path}/status", json={"status": "ended"})).status_code == 422

    async def test_a_paused_one_reaches_the_gateway(
        self, client: httpx.AsyncClient, subscribed: dict, services, redis_url: str
    ):
        path = f"/admin/v1/subscriptions/{subscribed['id']}/status"
        paused = []
        for status in ("active", "paused", "active"):
            ok(await client.post(path, json={"status": status}))
            await services.rebuild(NOW)
            with Redis.from_url(redis_url) as redis:
                record = decode_account_record(redis.get(account_record(subscribed["account_id"])))
            paused.append(record.products["weather"].paused)
        assert paused == [False, True, False]


class TestFittingPlan:
    async def test_says_what_the_last_30_days_would_have_cost(
        self, client: httpx.AsyncClient, used: dict, sessions
    ):
        path = f"/admin/v1/subscriptions/{used['id']}"
        assert ok(await client.get(path))["fitting_plan"] is None
        await refresh_hints(sessions, [used["id"]], now=NOW)
        fitting = ok(await client.get(path))["fitting_plan"]
        assert fitting["plan"] == "growth"
        assert fitting["demand"] == {
            "days": 30,
            "units": {"requests": 50_113, "bytes_in": 20, "bytes_out": 40},
            "refused_calls": 13,
            "rate_limited_calls": 13,
            "peak_hour_calls": 50_120,
        }
        assert [(offer["plan"], offer["price"] and offer["price"]["text"]) for offer in fitting["offers"]] == [
            ("growth", "$199.00"),
            ("enterprise", None),
        ]


class TestKeyHash:
    async def test_is_shown_with_one_key_and_in_no_list(self, client: httpx.AsyncClient, subscribed: dict):
        path = f"/admin/v1/accounts/{subscribed['account_id']}/keys"
        issued = ok(await client.post(path, json={"name": "anybody", "mode": "live"}), 201)
        shown = ok(await client.get(f"/admin/v1/keys/{issued['key']['id']}"))
        assert shown["key_hash"] == hash_api_key(issued["text"])
        assert (shown["origin"], shown["hint"][-4:]) == ("issued", issued["text"][-4:])
        assert shown["key_hash"] not in (await client.get(path)).text


class TestInvoicePreview:
    async def test_shows_its_working_and_whole_minor_units(self, client: httpx.AsyncClient, used: dict):
        path = f"/admin/v1/accounts/{used['account_id']}/invoices/preview/weather"
        preview = ok(await client.get(path))
        fee, overage = preview["lines"]
        assert fee["amount"]["currency"] == "USD"
        assert overage["formula"] == "100 requests above 50,000 × $0.0015"  # noqa: RUF001 - as on any invoice
        assert (overage["used_units"], overage["quantity"], overage["exact_amount"]) == (50_100, 100, "0.1500")
        assert overage["amount"] == {"amount_minor": 15, "currency": "USD", "text": "$0.15"}
        assert [tier["quantity"] for tier in overage["tiers"]] == [50_000, 100]
        assert preview["total"]["amount_minor"] == fee["amount"]["amount_minor"] + 15
        assert preview["quota"] == {
            "used_units": 50_100,
            "quota_units": 50_000,
            "used_percent": 100.2,
            "on_exceed": "charge",
        }


class TestUsage:
    async def test_groups_by_several_things(self, client: httpx.AsyncClient, used: dict):
        path = f"/admin/v1/accounts/{used['account_id']}/usage"
        answer = ok(await client.get(path, params={"group_by": ["endpoint", "status"]}))
        assert {(row["by"]["endpoint"], row["by"]["status"]): row["calls"] for row in answer["items"]} == {
            ("GET /v1/current/{city}", "200"): 50_000,
            ("GET /v1/forecast", "200"): 100,
            ("GET /v1/forecast", "503"): 7,
            ("GET /v1/forecast", "429"): 13,
        }

    async def test_of_everybody_is_the_sum(self, client: httpx.AsyncClient, used: dict):
        answer = ok(await client.get("/admin/v1/usage", params={"group_by": "product"}))
        assert [(row["by"], row["calls"], row["billable_units"]) for row in answer["items"]] == [
            ({"product": "weather"}, 50_120, 50_100)
        ]

    async def test_a_span_is_half_open(self, client: httpx.AsyncClient, used: dict):
        path = f"/admin/v1/accounts/{used['account_id']}/usage"
        for start, end, calls in ((HOUR, HOUR + timedelta(hours=1), 50_120), (HOUR - timedelta(hours=1), HOUR, 0)):
            span = {"start": start.isoformat(), "end": end.isoformat(), "group_by": "product"}
            items = ok(await client.get(path, params=span))["items"]
            assert sum(row["calls"] for row in items) == calls

    async def test_of_billing_periods_begins_with_the_running_one(self, client: httpx.AsyncClient, used: dict):
        path = f"/admin/v1/subscriptions/{used['id']}/usage"
        (running, *_) = ok(await client.get(path))["items"]
        assert {name: running[name] for name in ("start", "end")} == used["current_period"]
        assert {mode: figures["calls"] for mode, figures in running["figures"].items()} == {"live": 50_120}

    async def test_of_an_unknown_subscription_is_a_404(self, client: httpx.AsyncClient):
        answer = await client.get(f"/admin/v1/subscriptions/sub_{'0' * 26}/usage")
        assert (answer.status_code, answer.json()["code"]) == (404, "subscription_not_found")


class TestEvents:
    async def test_an_account_without_calls_has_none(self, client: httpx.AsyncClient, subscribed: dict):
        path = f"/admin/v1/accounts/{subscribed['account_id']}/events"
        assert ok(await client.get(path)) == {"items": [], "next_cursor": None}

    async def test_a_store_that_cannot_be_opened_is_a_503(
        self, client: httpx.AsyncClient, subscribed: dict, history: EventHistory, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*_: object, **__: object) -> None:
            raise ConnectionError("secret address of the store")

        monkeypatch.setattr("control_plane.admin_api.history.EventStore.open", fail)
        answer = await client.get(f"/admin/v1/accounts/{subscribed['account_id']}/events")
        assert (answer.status_code, answer.json()["code"]) == (503, "event_store_unavailable")
        assert "secret" not in answer.text
        monkeypatch.undo()
        assert ok(await client.get(f"/admin/v1/accounts/{subscribed['account_id']}/events"))["items"] == []


class TestGateway:
    async def test_preview_adds_what_selling_needs(self, client: httpx.AsyncClient, subscribed: dict):
        preview = ok(await client.get("/admin/v1/gateway/preview"))
        assert "km-monetize" in preview["text"]
        assert "+" in preview["diff"]
        assert any("file-log" in line for line in preview["added"])
        status = ok(await client.get("/admin/v1/gateway"))
        assert (status["wanted_hash"], status["nodes"], status["error"]) == (preview["hash"], [], None)

    async def test_a_base_that_does_not_fit_is_explained(
        self, client: httpx.AsyncClient, subscribed: dict, services
    ):
        services.gateway.base_path.write_text("_format_version: '3.0'\nservices: 7\n")
        answer = await client.post("/admin/v1/gateway/push")
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["services"]
        assert ok(await client.get("/admin/v1/gateway"))["error"]


class TestRebuild:
    async def test_writes_every_record_again(self, client: httpx.AsyncClient, subscribed: dict, redis_url: str):
        report = ok(await client.post("/admin/v1/rebuild"))
        assert (report["accounts"], report["written"]) == (1, 1)
        with Redis.from_url(redis_url) as redis:
            assert redis.exists(account_record(subscribed["account_id"]))
        audit = ok(await client.get("/admin/v1/audit", params={"entity_id": "redis"}))
        assert [row["action"] for row in audit["items"]] == ["redis.rebuilt"]


class TestPages:
    async def test_neither_skip_nor_repeat(self, client: httpx.AsyncClient):
        made = [
            ok(await client.post("/admin/v1/accounts", json={"name": f"Account {n}"}), 201)["id"] for n in range(7)
        ]
        found, cursor = [], None
        while True:
            params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
            page = ok(await client.get("/admin/v1/accounts", params=params))
            found += [row["id"] for row in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(found) == sorted(made)
        assert len(found) == len(set(found))
