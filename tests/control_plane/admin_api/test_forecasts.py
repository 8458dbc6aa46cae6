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
