"""Coupons, promotion codes, founding members, referrals and tax rates through the API."""

import httpx
import pytest

from tests.control_plane.admin_api.test_resources import PLANS, YAML, ok

ADMIN = "/admin/v1"
COUPON = {"code": "spring", "name": "Spring offer", "percent": "20", "duration": "months", "count": 12}


@pytest.fixture
async def plans(client: httpx.AsyncClient) -> None:
    ok(await client.post(f"{ADMIN}/plans/apply", content=PLANS, headers=YAML))


async def post(client: httpx.AsyncClient, path: str, body: dict | None = None, status: int = 201) -> dict:
    return ok(await client.post(f"{ADMIN}{path}", json=body or {}), status)


async def an_account(client: httpx.AsyncClient, **facts: object) -> dict:
    return await post(client, "/accounts", {"name": "Acme", **facts})


async def subscribed(client: httpx.AsyncClient, **options: object) -> dict:
    account = await an_account(client)
    return await post(client, f"/accounts/{account['id']}/subscriptions", {"plan": "starter", **options})


async def discounts(client: httpx.AsyncClient, subscription: dict) -> list[dict]:
    return ok(await client.get(f"{ADMIN}/subscriptions/{subscription['id']}/discounts"))["items"]


async def refused(client: httpx.AsyncClient, path: str, body: dict, status: int = 409) -> str:
    answer = await client.post(f"{ADMIN}{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    return answer.json()["code"]


@pytest.mark.usefixtures("plans")
class TestDiscounts:
    async def test_a_code_comes_with_a_new_subscription(self, client: httpx.AsyncClient):
        coupon = await post(client, "/coupons", COUPON)
        assert (coupon["percent"], coupon["duration"], coupon["count"]) == ("20", "months", 12)
        await post(client, "/promotion-codes", {"code": "spring26", "coupon": "spring", "first_time_only": True})
        subscription = await subscribed(client, promotion_code="Spring26")
        (held,) = await discounts(client, subscription)
        assert (held["promotion_code"], held["percent"], held["over"]) == ("SPRING26", "20", False)
        assert held["holds_from"] == subscription["current_period"]["start"]
        assert (held["taken_off"]["text"], held["periods_left"]) == ("$0.00", None)
        found = ok(await client.get(f"{ADMIN}/coupons/spring"))
        assert (found["redemptions"], found["taken_off"]) == (1, [])
        (code,) = ok(await client.get(f"{ADMIN}/promotion-codes", params={"coupon": "spring"}))["items"]
        assert (code["code"], code["redemptions"]) == ("SPRING26", 1)

    async def test_a_code_that_is_refused_leaves_no_subscription(self, client: httpx.AsyncClient):
        account = await an_account(client)
        path = f"/accounts/{account['id']}/subscriptions"
        body = {"plan": "starter", "promotion_code": "NOBODY"}
        assert await refused(client, path, body, 404) == "promotion_code_not_found"
        assert ok(await client.get(f"{ADMIN}{path}"))["items"] == []

    async def test_a_code_comes_with_a_change_of_plan(self, client: httpx.AsyncClient):
        await post(client, "/coupons", COUPON)
        await post(client, "/promotion-codes", {"code": "SPRING26", "coupon": "spring"})
        subscription = await subscribed(client)
        path = f"/subscriptions/{subscription['id']}/change"
        await post(client, path, {"plan": "growth", "promotion_code": "SPRING26"}, 200)
        assert [held["coupon"] for held in await discounts(client, subscription)] == ["spring"]

    async def test_is_given_and_taken_away(self, client: httpx.AsyncClient):
        body = {"code": "ten", "name": "Ten", "amount": "10.00", "currency": "USD", "duration": "forever"}
        await post(client, "/coupons", body)
        subscription = await subscribed(client)
        path = f"/subscriptions/{subscription['id']}/discounts"
        given = await post(client, path, {"coupon": "ten", "starts": "next_period"})
        assert given["holds_from"] == subscription["current_period"]["end"]
        assert (given["amount"]["text"], given["source"]) == ("$10.00", "coupon")
        assert await refused(client, path, {"coupon": "ten"}) == "already_discounted"
        gone = ok(await client.delete(f"{ADMIN}{path}/{given['id']}"))
        assert (gone["over"], gone["removed_at"]) == (True, "2026-11-23T09:00:00.000Z")

    async def test_what_was_redeemed_is_final(self, client: httpx.AsyncClient):
        await post(client, "/coupons", COUPON)
        terms = {name: value for name, value in COUPON.items() if name != "code"}
        changed = ok(await client.put(f"{ADMIN}/coupons/spring", json={**terms, "percent": "12.5"}))
        assert changed["percent"] == "12.5"
        subscription = await subscribed(client)
        await post(client, f"/subscriptions/{subscription['id']}/discounts", {"coupon": "spring"})
        answer = await client.put(f"{ADMIN}/coupons/spring", json=terms)
        assert (answer.status_code, answer.json()["code"]) == (409, "coupon_redeemed")
        archived = await post(client, "/coupons/spring/archive", status=200)
        assert archived["archived_at"] is not None
        assert ok(await client.get(f"{ADMIN}/coupons"))["items"] == []

    async def test_founding_members_have_theirs_without_asking(self, client: httpx.AsyncClient):
        assert (await client.get(f"{ADMIN}/founding-offer")).status_code == 404
        await post(client, "/founding-offer", {"percent": "25", "max_accounts": 1})
        first, second = await subscribed(client), await subscribed(client)
        (held,) = await discounts(client, first)
        assert (held["source"], held["percent"], held["ends_at"][:4]) == ("founding", "25", "2027")
        assert await discounts(client, second) == []
        assert ok(await client.get(f"{ADMIN}/founding-offer"))["members"] == 1
        assert (
            await refused(client, "/founding-offer", {"percent": "20", "max_accounts": 9}) == "founding_offer_open"
        )
        assert ok(await client.delete(f"{ADMIN}/founding-offer"))["state"] == "closed"


class TestReferrals:
    async def test_are_named_when_an_account_is_made(self, client: httpx.AsyncClient):
        ok(await client.put(f"{ADMIN}/referrals/rewards/USD", json={"amount": "25"}))
        ada = await an_account(client)
        code = (await post(client, f"/accounts/{ada['id']}/referral-code", status=200))["code"]
        bob = await an_account(client, referral_code=code.lower())
        (referral,) = ok(await client.get(f"{ADMIN}/referrals", params={"referrer_id": ada["id"]}))["items"]
        assert (referral["account_id"], referral["state"], referral["reward"]["text"]) == (
            bob["id"],
            "pending",
            "$25.00",
        )
        (report,) = ok(await client.get(f"{ADMIN}/referrals/referrers"))["items"]
        assert (report["brought"], report["paying"], report["pending"]["text"]) == (1, 0, "$25.00")
        assert await refused(client, "/referrals", {"account_id": ada["id"], "code": code}) == "referred_itself"
        assert await refused(client, "/accounts", {"name": "X", "referral_code": "NOBODY00"}, 404) == (
            "referral_code_not_found"
        )

    async def test_rewards_are_by_currency(self, client: httpx.AsyncClient):
        path = f"{ADMIN}/referrals/rewards"
        ok(await client.put(f"{path}/JPY", json={"amount": "3000"}))
        assert ok(await client.get(path))["items"][0]["reward"]["text"] == "¥3,000"
        fine = await client.put(f"{path}/JPY", json={"amount": "0.5"})
        assert [wrong["field"] for wrong in ok(fine, 422)["errors"]] == ["amount"]
        assert (await client.put(f"{path}/XXX", json={"amount": "5"})).status_code == 422
        assert ok(await client.delete(f"{path}/JPY"))["reward"] is None


class TestTaxRates:
    async def test_are_added_listed_and_ended(self, client: httpx.AsyncClient):
        body = {"name": "VAT", "percent": "19.0", "country": "DE"}
        rate = await post(client, "/tax-rates", body)
        assert (rate["percent"], rate["valid_from"], rate["region"]) == ("19", "2026-11-23T09:00:00.000Z", None)
        assert await refused(client, "/tax-rates", body) == "tax_rate_overlaps"
        ended = await post(client, f"/tax-rates/{rate['id']}/end", {"at": "2027-01-01T00:00:00Z"}, 200)
        (listed,) = ok(await client.get(f"{ADMIN}/tax-rates", params={"country": "DE"}))["items"]
        assert listed == ended
        default = await post(client, "/tax-rates", {"name": "Default", "percent": "7"})
        assert default["country"] is None


class TestWhoMay:
    async def test_finance_may_and_support_may_only_read(self, client_of):
        body = {"name": "VAT", "percent": "19", "country": "DE"}
        await post(client_of("finance"), "/tax-rates", body)
        await post(client_of("finance"), "/coupons", COUPON)
        for path in ("/tax-rates", "/coupons", "/promotion-codes", "/referrals", "/referrals/rewards"):
            ok(await client_of("support").get(f"{ADMIN}{path}"))
        for path in ("/tax-rates", "/coupons"):
            assert (await client_of("support").post(f"{ADMIN}{path}", json={})).status_code == 403


WRONG = [
    ("/coupons", {**COUPON, "percent": "0"}, "percent"),
    ("/coupons", {**COUPON, "percent": "1e1"}, "percent"),
    ("/coupons", {**COUPON, "percent": 20}, "percent"),
    ("/coupons", {**COUPON, "percent": None}, "percent"),
    ("/coupons", {**COUPON, "percent": None, "amount": "5"}, "amount"),
    ("/coupons", {**COUPON, "percent": None, "amount": "5", "currency": "XXX"}, "currency"),
    ("/coupons", {**COUPON, "percent": None, "amount": "5.001", "currency": "USD"}, "amount"),
    ("/coupons", {**COUPON, "count": None}, "count"),
    ("/coupons", {**COUPON, "duration": "always"}, "duration"),
    ("/coupons", {**COUPON, "plans": ["nothing"]}, "plans[0]"),
    ("/promotion-codes", {"code": "A B", "coupon": "spring"}, "code"),
    ("/promotion-codes", {"code": "ABC", "coupon": "spring", "minimum_amount": "5"}, "minimum_amount"),
    ("/founding-offer", {"percent": "25"}, "max_accounts"),
    ("/founding-offer", {"percent": "101", "max_accounts": 5}, "percent"),
    ("/tax-rates", {"name": "VAT", "percent": "0"}, "percent"),
    ("/tax-rates", {"name": "VAT", "percent": "5", "country": "ZZ"}, "country"),
    ("/tax-rates", {"name": "VAT", "percent": "5", "region": "QC"}, "region"),
    ("/referrals", {"account_id": "acc_1", "code": "ABCDEFGH"}, "account_id"),
    ("/referrals", {"account_id": f"acc_{'0' * 26}", "code": "ABC"}, "code"),
]


async def test_the_field_that_is_wrong_is_named(client: httpx.AsyncClient):
    for path, body, field in WRONG:
        answer = await client.post(f"{ADMIN}{path}", json=body)
        assert answer.status_code == 422, (path, body, answer.text)
        assert field in [wrong["field"] for wrong in answer.json()["errors"]], (path, body, answer.text)
