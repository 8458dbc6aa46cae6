"""Spend caps, caps of plans and calls at a time, through the API."""

import httpx
import pytest

from tests.control_plane.admin_api.conftest import KONG_YML
from tests.control_plane.admin_api.test_resources import PLANS, YAML, ok, subscribed, used

__all__ = ["subscribed", "used"]  # fixtures

CONCURRENT = """
api_products: [{code: weather, name: Weather, service: weather, routes: [weather]}]
plans:
  - {code: pro, name: Pro, api_product: weather, concurrency: {limit: 20}, on_past_due: refuse,
     event_retention_days: 400,
     quota: {units: 5, on_exceed: charge, cap: 9}}
"""
TOKENS = """
api_products:
  - {code: weather, name: Weather, service: weather, routes: [weather, heavy], unit_headers: {tokens: x-tokens}%s}
plans:
  - {code: chat, name: Chat, api_product: weather, prices: [{model: per_unit, meter: tokens, unit_amount: 0.001}]}
"""
TRIED = """
api_products: [{code: weather, name: Weather, service: weather, routes: [weather]}]
plans:
  - {code: tried, name: Tried, api_product: weather, trial: {days: 60, after: cancel},
     prices: [{model: flat, amount: "49.00"}]}
"""
METER = """
plugins:
  - name: km-usage-meter
    config: {concurrency: %s}
"""


def path_of(subscription: dict) -> str:
    return f"/admin/v1/subscriptions/{subscription['id']}"


async def apply(client: httpx.AsyncClient, text: str) -> httpx.Response:
    return await client.post("/admin/v1/plans/apply", content=text, headers=YAML)


class TestSpendCap:
    async def test_is_set_shown_and_taken_away(self, client: httpx.AsyncClient, subscribed: dict):
        put = ok(await client.put(f"{path_of(subscribed)}/spend-cap", json={"amount": "250.00"}))
        assert put == {
            "subscription_id": subscribed["id"],
            "spend_cap": {"amount_minor": 250_00, "currency": "USD", "text": "$250.00"},
            "effective": True,
        }
        assert ok(await client.get(path_of(subscribed)))["spend_cap"] == put["spend_cap"]
        gone = ok(await client.delete(f"{path_of(subscribed)}/spend-cap"))
        assert (gone["spend_cap"], gone["effective"]) == (None, False)
        assert ok(await client.get(path_of(subscribed)))["spend_cap"] is None
        entries = ok(await client.get("/admin/v1/audit", params={"entity_id": subscribed["id"]}))["items"]
        assert [entry["action"] for entry in entries].count("subscription.spend_capped") == 2

    async def test_previews_say_what_is_left(self, client: httpx.AsyncClient, used: dict):
        preview = f"/admin/v1/accounts/{used['account_id']}/invoices/preview/weather"
        assert ok(await client.get(preview))["spend_cap"] is None
        ok(await client.put(f"{path_of(used)}/spend-cap", json={"amount": "60"}))
        found = ok(await client.get(preview))
        assert found["spend_cap"]["cap"]["text"] == "$60.00"
        assert found["spend_cap"]["left"]["amount_minor"] == 60_00 - found["total"]["amount_minor"] > 0

    async def test_is_refused_by_field(self, client: httpx.AsyncClient, subscribed: dict):
        for body in ({"amount": "10.00"}, {"amount": 250}, {"amount": "1.001"}, {}):
            answer = await client.put(f"{path_of(subscribed)}/spend-cap", json=body)
            assert [wrong["field"] for wrong in ok(answer, 422)["errors"]] == ["amount"], body

    async def test_says_so_where_the_plan_charges_nothing_by_use(
        self, client: httpx.AsyncClient, subscribed: dict
    ):
        ok(await client.post(f"{path_of(subscribed)}/change", json={"plan": "free", "at": "now"}))
        assert not ok(await client.put(f"{path_of(subscribed)}/spend-cap", json={"amount": "60"}))["effective"]

    async def test_needs_the_right_to_change_things(self, client_of, subscribed: dict):
        body = {"amount": "250.00"}
        for role in ("support", "read_only", "finance"):
            answer = await client_of(role).put(f"{path_of(subscribed)}/spend-cap", json=body)
            assert answer.status_code == 403

    async def test_refuses_a_plan_that_it_could_not_be_kept_on(self, client: httpx.AsyncClient, subscribed: dict):
        ok(await client.put(f"{path_of(subscribed)}/spend-cap", json={"amount": "100.00"}))
        refused = ok(await client.post(f"{path_of(subscribed)}/change", json={"plan": "growth"}), 409)
        assert refused["code"] == "spend_cap_below_fixed_charges"
        assert ok(await client.get(path_of(subscribed)))["plan"] == "starter"

    async def test_refuses_to_go_on_where_it_could_not_be_kept(self, client: httpx.AsyncClient):
        ok(await apply(client, TRIED))
        account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)
        path = f"/admin/v1/accounts/{account['id']}/subscriptions"
        held = path_of(ok(await client.post(path, json={"plan": "tried"}), 201))
        ok(await client.put(f"{held}/spend-cap", json={"amount": "1"}))  # it ends with its trial
        active = {"status": "active"}
        for step, body in (("keep", None), ("end-trial", None), ("status", active)):
            refused = ok(await client.post(f"{held}/{step}", json=body), 409)
            assert refused["code"] == "spend_cap_below_fixed_charges", step
        ok(await client.put(f"{held}/spend-cap", json={"amount": "100"}))
        ok(await client.post(f"{held}/end-trial"))
        ok(await client.post(f"{held}/pause"))
        ok(await client.put(f"{held}/spend-cap", json={"amount": "5"}))
        for step, body in (("resume", None), ("status", active)):
            refused = ok(await client.post(f"{held}/{step}", json=body), 409)
            assert refused["code"] == "spend_cap_below_fixed_charges", step
        assert ok(await client.get(held))["status"] == "paused"


class TestUnitMaximums:
    @pytest.fixture
    async def chatting(self, client: httpx.AsyncClient) -> dict:
        ok(await apply(client, TOKENS % ", unit_maximums: {'*': {tokens: 8000}}"))
        account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)
        path = f"/admin/v1/accounts/{account['id']}/subscriptions"
        found = ok(await client.post(path, json={"plan": "chat"}), 201)
        ok(await client.put(f"{path_of(found)}/spend-cap", json={"amount": "60"}))
        return found

    async def test_are_needed_by_caps(self, client: httpx.AsyncClient, chatting: dict):
        body = {"unit_maximums": {"weather": {"tokens": 8000}}}
        refused = ok(await client.patch("/admin/v1/products/weather", json=body), 409)
        assert refused["code"] == "unit_maximum_missing"
        assert "tokens" in refused["detail"]
        assert "route heavy" in refused["detail"]
        assert ok(await apply(client, TOKENS % ""), 409)["code"] == "unit_maximum_missing"
        shown = ok(await client.get("/admin/v1/products/weather"))
        assert shown["unit_maximums"] == {"*": {"tokens": 8000}}

    async def test_and_the_replay_header_can_be_changed(self, client: httpx.AsyncClient, chatting: dict):
        body = {"unit_maximums": {"weather": {"tokens": 9}, "heavy": {"tokens": 0}}, "replay_header": "X-Again"}
        found = ok(await client.patch("/admin/v1/products/weather", json=body))
        assert (found["unit_maximums"], found["replay_header"]) == (body["unit_maximums"], "x-again")


class TestConcurrency:
    async def test_is_shown_with_other_caps_and_brings_a_meter_to_routes_without_a_door(
        self, client: httpx.AsyncClient
    ):
        ok(await apply(client, CONCURRENT))
        version = ok(await client.get("/admin/v1/plans/pro"))["published"]
        assert version["concurrency"] == {"limit": 20, "lease_ms": 60_000}
        assert (version["quota_cap_units"], version["on_past_due"]) == (9, "refuse")
        assert version["event_retention_days"] == 400

        preview = ok(await client.get("/admin/v1/gateway/preview"))
        assert "km-usage-meter for plan 'pro' on route 'weather'" in preview["added"]
        assert "concurrency: true" in preview["text"]

    async def test_a_gateway_that_would_not_see_calls_end_is_refused_at_once(
        self, client: httpx.AsyncClient, services
    ):
        services.gateway.base_path.write_text(KONG_YML + METER % "false")
        refused = ok(await apply(client, CONCURRENT), 422)
        (wrong,) = refused["errors"]
        assert wrong["field"] == "kong.yml: plugins[0].config.concurrency"
        assert wrong["message"].startswith("must be true: plan 'pro' limits calls at a time")
        assert "'weather'" in wrong["message"]
        assert ok(await client.get("/admin/v1/plans"))["items"] == []
        ok(await apply(client, PLANS))  # a catalogue without such plans is no matter

    async def test_a_meter_that_sees_calls_end_is_right(self, client: httpx.AsyncClient, services):
        services.gateway.base_path.write_text(KONG_YML + METER % "true")
        ok(await apply(client, CONCURRENT))
        ok(await client.get("/admin/v1/gateway/preview"))

    async def test_a_base_that_changed_since_is_refused_when_rendered(self, client: httpx.AsyncClient, services):
        ok(await apply(client, CONCURRENT))
        services.gateway.base_path.write_text(KONG_YML + METER % "false")
        assert "plan 'pro'" in str(ok(await client.get("/admin/v1/gateway/preview"), 422)["errors"])

    async def test_a_base_that_cannot_be_read_is_no_matter_here(self, client: httpx.AsyncClient, services):
        services.gateway.base_path.unlink()
        ok(await apply(client, CONCURRENT))
