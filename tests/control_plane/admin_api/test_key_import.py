"""Taking over keys by their hashes: matched, made, refused; and told to the gateway."""

from collections.abc import Callable

import httpx
import pytest
from redis import Redis
from sqlalchemy import func, select

from control_plane.accounts.tables import Account
from control_plane.foundation.audit import AuditRow
from control_plane.keys.tables import ApiKey
from control_plane.subscriptions.tables import Subscription
from gateway_contract.api_keys import hash_api_key
from gateway_contract.records import decode_key_record
from gateway_contract.redis_names import key_record
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.admin_api.test_resources import PLANS, YAML, ok

PATH = "/admin/v1/keys/import"
Post = Callable


def account(external_id: str, *keys: str, **options) -> dict:
    return {
        "external_id": external_id,
        "name": external_id.title(),
        "keys": [{"key_hash": hash_api_key(key), "name": f"key {key[:3]}"} for key in keys],
        **options,
    }


@pytest.fixture
async def post(client: httpx.AsyncClient) -> Post:
    """Imports accounts onto the shipped Starter plan and returns the answer's accounts."""
    ok(await client.post("/admin/v1/plans/apply", content=PLANS, headers=YAML))

    async def send(*accounts: dict, **options) -> list[dict]:
        body = {"api_product": "weather", "plan": "starter", "accounts": list(accounts), **options}
        return ok(await client.post(PATH, json=body))["accounts"]

    return send


async def rows(sessions, table) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(table))


class TestImport:
    async def test_makes_account_subscription_and_keys(self, post: Post, client: httpx.AsyncClient):
        (done,) = await post(account("acme", "first-key-of-acme-2020", "second"))
        assert (done["outcome"], done["plan"], done["keys_created"]) == ("created", "starter", 2)
        made = ok(await client.get(f"/admin/v1/accounts/{done['account_id']}"))
        assert (made["external_id"], made["name"], made["currency"]) == ("acme", "Acme", "USD")
        (subscription,) = ok(await client.get(f"/admin/v1/accounts/{made['id']}/subscriptions"))["items"]
        assert (subscription["id"], subscription["plan"]) == (done["subscription_id"], "starter")
        keys = ok(await client.get(f"/admin/v1/accounts/{made['id']}/keys"))["items"]
        assert {(key["origin"], key["hint"], key["status"]) for key in keys} == {("imported", None, "active")}
        assert ok(await client.get(f"/admin/v1/keys/{keys[0]['id']}"))["key_hash"] is None

    async def test_a_second_time_changes_nothing(self, post: Post, sessions):
        body = [account("acme", "one", "two"), account("globex", "three")]
        await post(*body)
        before = [await rows(sessions, table) for table in (Account, Subscription, ApiKey, AuditRow)]
        again = await post(*body)
        assert [(one["outcome"], one["keys_created"], one["keys_existing"]) for one in again] == [
            ("existing", 0, 2),
            ("existing", 0, 1),
        ]
        assert [await rows(sessions, table) for table in (Account, Subscription, ApiKey, AuditRow)] == before

    async def test_adds_new_keys_to_an_account_that_is_there(self, post: Post, client: httpx.AsyncClient):
        made = ok(await client.post("/admin/v1/accounts", json={"name": "Acme", "external_id": "acme"}), 201)
        path = f"/admin/v1/accounts/{made['id']}/subscriptions"
        ok(await client.post(path, json={"plan": "growth"}), 201)
        (done,) = await post(account("acme", "one"))
        assert (done["outcome"], done["account_id"]) == ("existing", made["id"])
        assert (done["plan"], done["subscribed"], done["keys_created"]) == ("growth", False, 1)

    async def test_a_key_of_another_account_refuses_the_whole_account(self, post: Post, sessions):
        (first,) = await post(account("acme", "shared"))
        refused, made = await post(account("globex", "own", "shared"), account("initech", "third"))
        assert (refused["outcome"], refused["account_id"]) == ("refused", None)
        assert refused["reason"] == f"key 2 (key sha) belongs to account {first['account_id']} already"
        assert made["outcome"] == "created"
        assert (await rows(sessions, Account), await rows(sessions, ApiKey)) == (2, 2)

    async def test_so_does_one_that_is_given_for_two(self, post: Post, sessions):
        done = await post(account("acme", "same", "one"), account("globex", "same"))
        assert [one["outcome"] for one in done] == ["refused", "refused"]
        assert "is given for globex, too" in done[0]["reason"]
        assert await rows(sessions, ApiKey) == 0

    async def test_a_key_given_twice_for_one_account_is_one(self, post: Post, sessions):
        (done,) = await post(account("acme", "same", "same"))
        assert (done["keys_created"], await rows(sessions, ApiKey)) == (1, 1)

    async def test_a_dry_run_says_the_same_and_writes_nothing(self, post: Post, sessions):
        body = [account("acme", "one", "two"), account("globex", "one")]
        tables = (Account, Subscription, ApiKey, AuditRow)
        before = [await rows(sessions, table) for table in tables]
        planned = await post(*body, dry_run=True)
        assert [await rows(sessions, table) for table in tables] == before
        done = await post(*body)
        assert [(one["outcome"], one["reason"], one["keys_created"]) for one in planned] == [
            (one["outcome"], one["reason"], one["keys_created"]) for one in done
        ]

    async def test_revoked_keys_stay_revoked(self, post: Post, client: httpx.AsyncClient):
        (done,) = await post(account("acme", "one"))
        (key,) = ok(await client.get(f"/admin/v1/accounts/{done['account_id']}/keys"))["items"]
        ok(await client.post(f"/admin/v1/keys/{key['id']}/revoke"))
        (again,) = await post(account("acme", "one"))
        assert (again["keys_created"], again["keys_existing"]) == (0, 1)
        assert ok(await client.get(f"/admin/v1/keys/{key['id']}"))["status"] == "revoked"

    async def test_an_account_that_pays_in_another_currency_is_refused(
        self, post: Post, client: httpx.AsyncClient
    ):
        body = {"name": "Acme", "external_id": "acme", "currency": "EUR"}
        ok(await client.post("/admin/v1/accounts", json=body), 201)
        (refused,) = await post(account("acme", "one"))
        assert "pays in EUR, the plan is priced in USD" in refused["reason"]

    async def test_reaches_the_gateway(self, post: Post, services, redis_url: str):
        (done,) = await post(account("acme", "one"))
        await services.rebuild(NOW)
        with Redis.from_url(redis_url) as redis:
            record = decode_key_record(redis.get(key_record(hash_api_key("one"))))
        assert (record.account_id, record.name) == (done["account_id"], "key one")

    async def test_an_imported_key_is_rotated_into_one_of_ours(self, post: Post, client: httpx.AsyncClient):
        (done,) = await post(account("acme", "one"))
        (key,) = ok(await client.get(f"/admin/v1/accounts/{done['account_id']}/keys"))["items"]
        rotated = ok(await client.post(f"/admin/v1/keys/{key['id']}/rotate", json={"overlap_seconds": 60}), 201)
        assert rotated["text"].startswith("km_live_")
        assert rotated["key"]["origin"] == "issued"


class TestForm:
    @pytest.mark.parametrize(
        "key_hash", ["a-key-by-mistake", "km_live_0123", "AB" * 32, "a" * 63, "a" * 65, "g" * 64, ""]
    )
    async def test_anything_but_a_hash_is_refused(self, post: Post, client: httpx.AsyncClient, key_hash: str):
        key = {"key_hash": key_hash, "name": "one"}
        body = {"api_product": "weather", "plan": "starter", "accounts": [account("acme", keys=[key])]}
        answer = await client.post(PATH, json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "accounts[0].keys[0].key_hash"
        assert not key_hash or key_hash not in answer.text

    async def test_null_stands_for_no_hint_and_no_expiry(self, post: Post):
        key = {"key_hash": "0" * 64, "name": "one", "last_characters": None, "expires_at": None}
        assert (await post(account("acme", keys=[key])))[0]["keys_created"] == 1

    async def test_the_plan_must_be_of_the_product(self, post: Post, client: httpx.AsyncClient):
        body = {"api_product": "maps", "plan": "starter", "accounts": [account("acme", "one")]}
        answer = await client.post(PATH, json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "plan")

    async def test_an_account_twice_is_refused(self, post: Post, client: httpx.AsyncClient):
        accounts = [account("acme", "one"), account("acme", "two")]
        body = {"api_product": "weather", "plan": "starter", "accounts": accounts}
        assert (await client.post(PATH, json=body)).status_code == 422

    async def test_only_owners_and_admins_import(self, client_of: Callable):
        for role in ("finance", "support", "read_only"):
            assert (await client_of(role).post(PATH, json={})).status_code == 403


class TestExternalId:
    async def test_belongs_to_one_account(self, client: httpx.AsyncClient):
        body = {"name": "Acme", "external_id": "crm-7"}
        made = ok(await client.post("/admin/v1/accounts", json=body), 201)
        again = await client.post("/admin/v1/accounts", json=body)
        assert (again.status_code, again.json()["code"]) == (409, "external_id_taken")
        found = ok(await client.get("/admin/v1/accounts", params={"search": "crm-7"}))["items"]
        assert [one["id"] for one in found] == [made["id"]]
