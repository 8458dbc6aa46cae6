"""Moves of many subscriptions by REST."""

import httpx
import pytest

from control_plane.billing.plan_moves.worker import PlanMovesConfig, move_once
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.admin_api.test_resources import YAML, ok, subscribed

__all__ = ["subscribed"]  # a fixture

NEW_PRICE = """
api_products: [{code: weather, name: Weather, service: weather, routes: [weather, heavy]}]
plans: [{code: starter, name: Starter, api_product: weather, prices: [{model: flat, amount: 59}]}]
"""
MOVE = {"from_plan": "starter", "at": "2027-01-10T00:00:00Z"}


@pytest.fixture
async def outdated(client: httpx.AsyncClient, subscribed: dict) -> dict:
    ok(await client.post("/admin/v1/plans/apply", content=NEW_PRICE, headers=YAML))
    return subscribed


class TestPlanMoves:
    async def test_from_preview_to_cancellation(self, client: httpx.AsyncClient, client_of, outdated: dict):
        preview = ok(await client_of("read_only").post("/admin/v1/plan-moves/preview", json=MOVE))
        assert (preview["subscriptions"], preview["movable"], preview["reasons"]) == (1, 1, {})
        assert preview["items"][0]["subscription_id"] == outdated["id"]
        assert preview["totals"]["USD"]["recurring_after"]["text"] == "$59.00"
        made = ok(await client.post("/admin/v1/plan-moves", json={**MOVE, "message": "Thank you."}), 201)
        assert (made["status"], made["counts"], made["to_tell"]) == ("scheduled", {"waiting": 1}, 1)
        url = f"/admin/v1/plan-moves/{made['id']}"
        assert ok(await client.get("/admin/v1/plan-moves"))["items"] == [made]
        (item,) = ok(await client.get(f"{url}/subscriptions", params={"status": "waiting"}))["items"]
        assert item["notice"]["message"] == "Thank you."
        assert ok(await client.get(f"{url}/subscriptions", params={"status": "moved"}))["items"] == []
        excluded = {"subscription_id": outdated["id"], "reason": "objects"}
        assert ok(await client.post(f"{url}/exclude", json=excluded))["counts"] == {"excluded": 1}
        assert (await client.post(f"{url}/exclude", json=excluded)).status_code == 409
        assert ok(await client.post(f"{url}/cancel"))["status"] == "canceling"
        assert ok(await client.get(url))["status"] == "canceling"

    async def test_discarding_the_planned_change_excludes(
        self, client: httpx.AsyncClient, sessions, outdated: dict
    ):
        made = ok(await client.post("/admin/v1/plan-moves", json=MOVE), 201)
        await move_once(sessions, config=PlanMovesConfig(), now=NOW)
        answer = ok(await client.post(f"/admin/v1/subscriptions/{outdated['id']}/discard-change"))
        assert len(answer["phases"]) == 1
        assert ok(await client.get(f"/admin/v1/plan-moves/{made['id']}"))["counts"] == {"excluded": 1}

    async def test_refusals(self, client: httpx.AsyncClient, client_of, outdated: dict):
        soon = await client.post("/admin/v1/plan-moves", json={**MOVE, "at": "2026-12-01T00:00:00Z"})
        assert (soon.status_code, soon.json()["code"]) == (409, "notice_too_short")
        unknown = await client.post("/admin/v1/plan-moves/preview", json={**MOVE, "from_plan": "tides"})
        assert unknown.status_code == 404
        stranger = {**MOVE, "exclude": {"sub_" + "0" * 26: "objects"}}
        assert [
            one["field"] for one in ok(await client.post("/admin/v1/plan-moves", json=stranger), 422)["errors"]
        ]
        assert (await client_of("support").post("/admin/v1/plan-moves", json=MOVE)).status_code == 403
        assert (await client.get("/admin/v1/plan-moves/mov_" + "0" * 26)).status_code == 404
        assert outdated["status"] == "active"
