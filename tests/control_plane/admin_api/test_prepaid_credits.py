"""Prepaid credits through the API."""

import httpx
import pytest

from tests.control_plane.admin_api.test_resources import ok

ADMIN = "/admin/v1"


@pytest.fixture
async def account(client: httpx.AsyncClient) -> dict:
    return ok(await client.post(f"{ADMIN}/accounts", json={"name": "Acme"}), 201)


async def grant(client: httpx.AsyncClient, account: dict, amount: str, **more: object) -> dict:
    path = f"{ADMIN}/accounts/{account['id']}/credits/grants"
    return ok(await client.post(path, json={"amount": amount, **more}), 201)


async def reserve(
    client: httpx.AsyncClient, account: dict, amount: str, reference: str = "job 1"
) -> httpx.Response:
    path = f"{ADMIN}/accounts/{account['id']}/credits/reservations"
    return await client.post(path, json={"amount": amount, "reference": reference})


async def balance(client: httpx.AsyncClient, account: dict) -> tuple[str, str]:
    (item,) = ok(await client.get(f"{ADMIN}/accounts/{account['id']}/credits"))["items"]
    return item["available"]["text"], item["reserved"]["text"]


class TestCredits:
    async def test_are_granted_held_settled_and_revoked(self, client: httpx.AsyncClient, account: dict):
        granted = await grant(
            client, account, "100.00", kind="paid", reason="PO 4711", expires_at="2027-11-23T09:00:00Z"
        )
        assert granted["remaining"]["text"] == "$100.00"
        held = ok(await reserve(client, account, "30"), 201)
        assert await balance(client, account) == ("$70.00", "$30.00")
        settled = ok(
            await client.post(f"{ADMIN}/credits/reservations/{held['id']}/settle", json={"amount": "12.50"})
        )
        assert (settled["status"], settled["settled"]["text"]) == ("settled", "$12.50")
        assert await balance(client, account) == ("$87.50", "$0.00")
        revoked = ok(await client.post(f"{ADMIN}/credits/grants/{granted['id']}/revoke"))
        assert (revoked["remaining"]["amount_minor"], revoked["revoked_at"]) == (0, "2026-11-23T09:00:00.000Z")
        entries = ok(await client.get(f"{ADMIN}/accounts/{account['id']}/credits/entries"))["items"]
        assert [(one["kind"], one["amount"]["text"]) for one in reversed(entries)] == [
            ("grant", "$100.00"),
            ("reserve", "-$30.00"),
            ("release", "$30.00"),
            ("draw", "-$12.50"),
            ("revoke", "-$87.50"),
        ]
        (listed,) = ok(await client.get(f"{ADMIN}/accounts/{account['id']}/credits/grants"))["items"]
        assert listed == ok(await client.get(f"{ADMIN}/credits/grants/{granted['id']}")) == revoked

    async def test_more_than_is_left_is_refused_in_words(self, client: httpx.AsyncClient, account: dict):
        await grant(client, account, "1.00")
        refused = await reserve(client, account, "1.01")
        assert (refused.status_code, refused.json()["code"]) == (409, "credits_used_up")
        assert "$1.00 of the account" in refused.json()["detail"]

    async def test_what_was_released_is_free_again(self, client: httpx.AsyncClient, account: dict):
        await grant(client, account, "1.00")
        held = ok(await reserve(client, account, "1.00"), 201)
        released = ok(await client.post(f"{ADMIN}/credits/reservations/{held['id']}/release"))
        assert released["status"] == "released"
        assert ok(await reserve(client, account, "1.00", "job 2"), 201)["status"] == "held"
        items = ok(await client.get(f"{ADMIN}/accounts/{account['id']}/credits/reservations"))["items"]
        assert [one["status"] for one in items] == ["held", "released"]

    async def test_are_sold_by_invoice(self, client: httpx.AsyncClient, account: dict):
        path = f"{ADMIN}/accounts/{account['id']}/credits/purchases"
        sold = ok(await client.post(path, json={"amount": "50.00"}), 201)
        assert (sold["number"], sold["status"], sold["due"]["text"]) == ("INV-000001", "open", "$50.00")
        assert ok(await client.get(f"{ADMIN}/accounts/{account['id']}/credits"))["items"] == []

    async def test_an_amount_that_is_none_is_refused(self, client: httpx.AsyncClient, account: dict):
        path = f"{ADMIN}/accounts/{account['id']}/credits/grants"
        for amount in ("0.001", "-1", "0", "1e3", "ten"):
            refused = await client.post(path, json={"amount": amount})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "amount"), amount

    async def test_finance_may_change_them_and_support_may_look(self, client_of, account: dict):
        assert (await grant(client_of("finance"), account, "1.00"))["amount"]["text"] == "$1.00"
        support = client_of("support")
        assert await balance(support, account) == ("$1.00", "$0.00")
        path = f"{ADMIN}/accounts/{account['id']}/credits/grants"
        assert (await support.post(path, json={"amount": "1"})).status_code == 403

    async def test_of_nobody_are_not_found(self, client: httpx.AsyncClient):
        nobody = "0" * 26
        assert (await client.get(f"{ADMIN}/accounts/acc_{nobody}/credits")).status_code == 404
        assert (await client.get(f"{ADMIN}/credits/grants/crg_{nobody}")).status_code == 404
        answer = await client.post(f"{ADMIN}/credits/reservations/crs_{nobody}/release")
        assert answer.json()["code"] == "credit_reservation_not_found"
