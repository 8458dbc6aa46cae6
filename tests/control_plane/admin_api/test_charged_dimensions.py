"""What a plan charges for goes on being reported."""

import httpx

from tests.control_plane.admin_api.test_resources import YAML, ok

PRODUCT = "{code: weather, name: Weather, service: weather, routes: [weather]%s}"
CHAT = "{code: chat, name: Chat, api_product: weather, prices: [%s]}"
BY_TOKENS = '{model: per_unit, meter: tokens, unit_amount: "0.001"}'
BY_REQUESTS = '{model: per_unit, unit_amount: "0.001"}'
REPORTED = ", unit_headers: {tokens: x-tokens}"


async def apply(client: httpx.AsyncClient, reported: str, price: str) -> httpx.Response:
    text = f"api_products: [{PRODUCT % reported}]\nplans: [{CHAT % price}]\n"
    return await client.post("/admin/v1/plans/apply", content=text, headers=YAML)


async def forget(client: httpx.AsyncClient) -> httpx.Response:
    return await client.patch("/admin/v1/products/weather", json={"unit_headers": {}})


class TestChargedDimensions:
    async def test_of_a_version_on_sale_stay(self, client: httpx.AsyncClient):
        ok(await apply(client, REPORTED, BY_TOKENS))
        refused = ok(await forget(client), 409)
        assert refused["code"] == "dimension_charged"
        assert "version 1 of plan chat charges for it" in refused["detail"]
        assert ok(await client.get("/admin/v1/products/weather"))["unit_headers"] == {"tokens": "x-tokens"}

    async def test_of_an_older_version_stay_while_somebody_has_it(self, client: httpx.AsyncClient):
        ok(await apply(client, REPORTED, BY_TOKENS))
        account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)
        path = f"/admin/v1/accounts/{account['id']}/subscriptions"
        held = ok(await client.post(path, json={"plan": "chat"}), 201)
        assert ok(await apply(client, "", BY_REQUESTS), 409)["code"] == "dimension_charged"
        ok(await apply(client, REPORTED, BY_REQUESTS))
        assert ok(await forget(client), 409)["code"] == "dimension_charged"
        ok(await client.post(f"/admin/v1/subscriptions/{held['id']}/cancel", json={"at": "now"}))
        ok(await forget(client))

    async def test_go_with_the_version_that_charged_for_them(self, client: httpx.AsyncClient):
        ok(await apply(client, REPORTED, BY_TOKENS))
        ok(await apply(client, "", BY_REQUESTS))
