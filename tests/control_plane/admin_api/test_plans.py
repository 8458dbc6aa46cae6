"""The catalogue through the API: drafts, whom a change concerns, taking away, what a pricing page needs."""

import httpx

from tests.control_plane.admin_api.test_resources import YAML

CATALOG = """
api_products: [{code: weather, name: Weather, service: weather, routes: [weather]}]
plans:
  - code: starter
    name: Starter
    api_product: weather
    description: For a first product.
    other_currencies: [EUR]
    trial: {days: 14, after: cancel}
    quota: {units: 50000, on_exceed: charge}
    features: [Email support]
    sla: 99.5 %
    support: Business hours
    prices:
      - {model: flat, amount: {USD: 49, EUR: 45}}
      - {model: overage, unit_amount: {USD: 0.0015, EUR: 0.0014}}
  - {code: secret, name: Secret, api_product: weather, visibility: hidden}
  - {code: free, name: Free, api_product: weather}
add_ons:
  - {code: more, name: More, api_product: weather, quota: {units: 1000}, prices: [{model: flat, amount: 5}]}
"""
DEARER = CATALOG.replace("USD: 49,", "USD: 59,")
PLANS = "/admin/v1/plans"


def ok(answer: httpx.Response) -> dict:
    assert answer.is_success, answer.text
    return answer.json()


async def applied(client: httpx.AsyncClient, text: str = CATALOG) -> dict:
    return ok(await client.post(f"{PLANS}/apply", content=text, headers=YAML))


async def subscribed(client: httpx.AsyncClient, plan: str = "starter", currency: str = "USD") -> dict:
    account = ok(await client.post("/admin/v1/accounts", json={"name": "Ada", "currency": currency}))
    return ok(await client.post(subscriptions_of(account), json={"plan": plan}))


def subscriptions_of(account: dict) -> str:
    return f"/admin/v1/accounts/{account['id']}/subscriptions"


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["code"] == code
    return problem["detail"]


class TestPlanList:
    async def test_gives_a_pricing_page_what_it_needs_in_order(self, client: httpx.AsyncClient):
        await applied(client)
        ok(await client.post(PLANS, json={"code": "unpriced", "name": "Unpriced", "api_product": "weather"}))
        items = ok(await client.get(PLANS, params={"on_page": True}))["items"]
        assert [(item["code"], item["kind"]) for item in items] == [
            ("starter", "plan"),
            ("free", "plan"),
            ("more", "add_on"),
        ]
        shown = items[0]["published"]
        assert items[0]["description"] == "For a first product."
        assert (shown["features"], shown["sla_level"], shown["support_level"]) == (
            ["Email support"],
            "99.5 %",
            "Business hours",
        )
        assert (shown["trial"], shown["currencies"]) == ({"days": 14, "after": "cancel"}, ["USD", "EUR"])
        assert [price["params"] for price in shown["prices"]] == [
            {"amount": "49.00"},
            {"included": 50000, "unit_amount": "0.0015"},
        ]
        assert shown["prices_in"]["EUR"][0]["params"] == {"amount": "45.00"}
        whole = ok(await client.get(PLANS))["items"]
        assert [item["code"] for item in whole] == ["starter", "secret", "free", "unpriced", "more"]
        add_ons = ok(await client.get(PLANS, params={"kind": "add_on"}))["items"]
        assert [item["code"] for item in add_ons] == ["more"]


class TestDiff:
    async def test_tells_whom_it_concerns_and_what_recurs(self, client: httpx.AsyncClient, client_of):
        await applied(client)
        for currency in ("USD", "EUR"):
            await subscribed(client, currency=currency)
        diff = ok(await client_of("read_only").post(f"{PLANS}/diff", content=DEARER, headers=YAML))
        assert [change["text"] for change in diff["changes"]] == [
            "plan starter: new_version (prices[0].params.amount: '49.00' -> '59.00')"
        ]
        (impact,) = diff["impact"]
        found = {one["currency"]: one for one in impact["versions"]}
        assert set(found) == {"USD", "EUR"}
        assert {one["version"] for one in found.values()} == {1}
        assert {one["subscriptions"] for one in found.values()} == {1}
        assert (await applied(client, DEARER))["impact"] == diff["impact"]

    async def test_is_refused_where_kong_yml_lacks_what_it_names(self, client: httpx.AsyncClient, services):
        wrong = CATALOG.replace("service: weather, routes: [weather]", "service: nix, routes: [weather, other]")
        for path in ("diff", "apply"):
            answer = await client.post(f"{PLANS}/{path}", content=wrong, headers=YAML)
            assert answer.status_code == 422
            assert [error["field"] for error in answer.json()["errors"]] == [
                "api_products.weather.service",
                "api_products.weather.routes[1]",
            ]
        assert ok(await client.get(PLANS))["items"] == []
        body = {"code": "other", "name": "Other", "service": "weather", "routes": ["other"]}
        assert (await client.post("/admin/v1/products", json=body)).status_code == 422
        services.gateway.base_path.unlink()
        ok(await client.post("/admin/v1/products", json=body))


class TestDraft:
    async def test_goes_from_nothing_to_sale(self, client: httpx.AsyncClient):
        await applied(client)
        created = ok(await client.post(PLANS, json={"code": "pro", "name": "Pro", "api_product": "weather"}))
        assert (created["position"], created["published"]) == (3, None)
        wrong = {"prices": [{"model": "commitment", "amount": "9"}]}
        draft = ok(await client.put(f"{PLANS}/pro/draft", json=wrong))
        assert [problem["field"] for problem in draft["problems"]] == ["prices[0]"]
        answer = await client.post(f"{PLANS}/pro/draft/publish")
        assert [error["field"] for error in answer.json()["errors"]] == ["prices[0]"]
        terms = draft["terms"] | {"prices": [{"model": "flat", "amount": 99.5}]}
        assert ok(await client.put(f"{PLANS}/pro/draft", json=terms))["problems"] == []
        version = ok(await client.post(f"{PLANS}/pro/draft/publish"))
        assert (version["status"], version["prices"][0]["params"]) == ("published", {"amount": "99.50"})
        refused(await client.get(f"{PLANS}/pro/draft"), 404, "plan_draft_not_found")

    async def test_says_what_it_would_change_and_is_thrown_away(self, client: httpx.AsyncClient):
        await applied(client)
        await subscribed(client)
        terms = {"quota": {"units": 7, "on_exceed": "refuse"}, "prices": [{"model": "flat", "amount": "9.00"}]}
        draft = ok(await client.put(f"{PLANS}/starter/draft", json=terms))
        changed = {change["field"]: change["after"] for change in draft["changes"]}
        assert (changed["quota_units"], changed["prices[0].params.amount"]) == (7, "9.00")
        assert draft["impact"]["versions"][0]["subscriptions"] == 1
        assert ok(await client.get(f"{PLANS}/starter/draft")) == draft
        ok(await client.delete(f"{PLANS}/starter/draft"))
        refused(await client.delete(f"{PLANS}/starter/draft"), 404, "plan_draft_not_found")
        assert ok(await client.get(f"{PLANS}/starter"))["published"]["quota_units"] == 50000

    async def test_refuses_what_is_wrong_by_itself_by_field(self, client: httpx.AsyncClient):
        await applied(client)
        for path, body, field in [
            ("starter", {"interval": "week"}, "interval"),
            ("starter", {"quota": {"units": 0, "on_exceed": "charge"}}, "quota.units"),
            ("more", {"limits": []}, "limits"),
            ("starter", [], ""),
        ]:
            answer = await client.put(f"{PLANS}/{path}/draft", json=body)
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), body
        for content in ("{", '{"prices": NaN}'):
            answer = await client.put(f"{PLANS}/starter/draft", content=content)
            assert answer.status_code == 422


class TestTakingAway:
    async def test_a_plan_in_use_is_archived_one_that_nobody_had_is_deleted(self, client: httpx.AsyncClient):
        await applied(client)
        await subscribed(client)
        detail = refused(await client.delete(f"{PLANS}/starter"), 409, "plan_in_use")
        assert "1 subscription on it now" in detail
        ok(await client.delete(f"{PLANS}/free"))
        refused(await client.get(f"{PLANS}/free"), 404, "plan_not_found")
        assert ok(await client.post(f"{PLANS}/starter/archive"))["archived_at"] is not None
        account = ok(await client.post("/admin/v1/accounts", json={"name": "Bo", "currency": "USD"}))
        path, body = subscriptions_of(account), {"plan": "starter"}
        refused(await client.post(path, json=body), 409, "plan_not_on_sale")
        assert ok(await client.patch(f"{PLANS}/starter", json={"name": "Start"}))["archived_at"] is not None
        assert ok(await client.post(f"{PLANS}/starter/unarchive"))["archived_at"] is None
        ok(await client.post(path, json=body))

    async def test_an_api_product_with_subscriptions_stays(self, client: httpx.AsyncClient):
        await applied(client)
        await subscribed(client)
        refused(await client.post("/admin/v1/products/weather/archive"), 409, "api_product_in_use")
        refused(await client.delete("/admin/v1/products/weather"), 409, "api_product_in_use")
        body = {"code": "heavy", "name": "Heavy", "service": "weather", "routes": ["heavy"]}
        ok(await client.post("/admin/v1/products", json=body))
        assert ok(await client.post("/admin/v1/products/heavy/archive"))["archived_at"] is not None
        assert ok(await client.post("/admin/v1/products/heavy/unarchive"))["archived_at"] is None
        ok(await client.delete("/admin/v1/products/heavy"))
        refused(await client.get("/admin/v1/products/heavy"), 404, "api_product_not_found")

    async def test_needs_the_right_to_write(self, client: httpx.AsyncClient, client_of):
        await applied(client)
        reader = client_of("read_only")
        for call in (
            reader.delete(f"{PLANS}/free"),
            reader.post(f"{PLANS}/free/archive"),
            reader.put(f"{PLANS}/free/draft", json={}),
            reader.post(f"{PLANS}/free/draft/publish"),
            reader.delete("/admin/v1/products/weather"),
        ):
            assert (await call).status_code == 403


class TestPlanFacts:
    async def test_two_plans_never_stand_at_one_place(self, client: httpx.AsyncClient):
        await applied(client)
        body = {"code": "pro", "name": "Pro", "api_product": "weather", "position": 0}
        refused(await client.post(PLANS, json=body), 409, "position_taken")
        refused(await client.patch(f"{PLANS}/free", json={"position": 0}), 409, "position_taken")
        assert ok(await client.patch(f"{PLANS}/free", json={"position": 9, "recommended": True}))["recommended"]


class TestOpenApiDocument:
    async def test_is_kept_exported_and_taken_away(self, client: httpx.AsyncClient):
        await applied(client)
        path, document = "/admin/v1/products/weather/openapi", "openapi: 3.1.0\npaths: {/v1/a: {get: {}}}\n"
        refused(await client.get(path), 404, "openapi_document_not_found")
        assert (await client.put(path, json={"document": "swagger: 2"})).status_code == 422
        product = ok(await client.put(path, json={"document": document}))
        assert product["endpoints"] == [{"method": "GET", "path_template": "/v1/a"}]
        assert product["has_openapi_document"]
        assert ok(await client.get(path))["document"] == document
        answer = await client.patch("/admin/v1/products/weather", json={"endpoints": []})
        assert answer.json()["errors"][0]["field"] == "endpoints"
        exported = ok(await client.get("/admin/v1/plan-file"))
        assert exported["documents"] == {"weather.openapi.yaml": document}
        assert ok(await client.post(f"{PLANS}/diff", json=exported))["changes"] == []
        assert not ok(await client.delete(path))["has_openapi_document"]
        assert ok(await client.get("/admin/v1/products/weather"))["endpoints"] == product["endpoints"]
