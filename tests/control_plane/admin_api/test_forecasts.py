"""Forecasts and comparisons by REST."""

import httpx

from tests.control_plane.admin_api.test_resources import ok, subscribed, used

__all__ = ["subscribed", "used"]  # fixtures


class TestForecast:
    async def test_shows_the_range_and_what_it_stands_on(self, client: httpx.AsyncClient, used: dict):
        answer = ok(await client.get(f"/admin/v1/accounts/{used['account_id']}/forecast/weather"))
        preview = ok(await client.get(f"/admin/v1/accounts/{used['account_id']}/invoices/preview/weather"))
        assert answer["subscription_id"] == used["id"]
        assert answer["subtotal_so_far"] == preview["subtotal"]
        subtotal = answer["subtotal"]
        assert subtotal["low"]["amount_minor"] <= subtotal["likely"]["amount_minor"]
        assert subtotal["likely"]["amount_minor"] <= subtotal["high"]["amount_minor"]
        assert answer["sureness"] in {"none", "low"}
        assert answer["meters"][0]["meter"] == "requests"

    async def test_refuses_what_does_not_run(self, client: httpx.AsyncClient, subscribed: dict):
        url = f"/admin/v1/accounts/{subscribed['account_id']}/forecast/weather"
        ok(await client.post(f"/admin/v1/subscriptions/{subscribed['id']}/cancel", json={"at": "now"}))
        answer = await client.get(url)
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_forecast")
        assert (await client.get(url.replace("weather", "tides"))).status_code == 404


class TestComparison:
    async def test_puts_plans_side_by_side(self, client: httpx.AsyncClient, used: dict):
        answer = ok(await client.get(f"/admin/v1/accounts/{used['account_id']}/comparison/weather"))
        held = [plan for plan in answer["plans"] if plan["held"]]
        assert [plan["plan"] for plan in held] == [used["plan"]]
        amounts = [plan["monthly"]["amount_minor"] for plan in answer["plans"] if plan["monthly"]]
        assert amounts == sorted(amounts)
        assert answer["demand"]["days"] == 30

    async def test_reckons_with_given_units_for_every_role(self, client_of, used: dict):
        body = {"currency": "USD", "units": {"requests": 100_000}}
        answer = ok(await client_of("read_only").post("/admin/v1/products/weather/comparison", json=body))
        assert answer["demand"]["units"] == {"requests": 100_000}
        assert answer["cheapest_fitting"] is not None
        wrong = await client_of("owner").post(
            "/admin/v1/products/weather/comparison", json={"currency": "USD", "units": {"stars": 1}}
        )
        assert [one["field"] for one in ok(wrong, 422)["errors"]] == ["units.stars"]
