"""What-if jobs by REST."""

import csv
import io
from datetime import timedelta

import httpx
import pytest

from control_plane.billing.what_if.worker import WhatIfConfig, work_once
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.admin_api.test_resources import ok
from tests.control_plane.builders import a_published_plan, a_subscription, an_account

DRAFT = {"plan": "starter", "source": "version", "version": 1, "months": 2}


@pytest.fixture
async def customer(session):
    since = NOW - timedelta(days=80)
    await a_published_plan(session, now=since)
    account = await an_account(session, now=since, name="=Ada, Ltd")
    made = await a_subscription(session, account, now=since)
    await session.commit()
    return made


async def test_from_start_to_export(client: httpx.AsyncClient, client_of, sessions, customer):
    job = ok(await client.post("/admin/v1/what-if", json=DRAFT), 201)
    assert (job["status"], job["sums"]) == ("queued", {})
    early = await client.get(f"/admin/v1/what-if/{job['id']}/export")
    assert (early.status_code, early.json()["code"]) == (409, "what_if_not_done")
    while await work_once(sessions, config=WhatIfConfig(), now=NOW):
        pass
    reader = client_of("read_only")
    shown = ok(await reader.get(f"/admin/v1/what-if/{job['id']}"))
    assert shown["status"] == "done"
    sums = shown["sums"]["USD"]
    assert (sums["before"]["text"], sums["difference"]["amount_minor"], sums["same"]) == ("$98.00", 0, 1)
    assert [one["subscription_id"] for one in shown["largest"]] == [customer.id]
    assert ok(await reader.get("/admin/v1/what-if"))["items"][0]["id"] == job["id"]
    (found,) = ok(await reader.get(f"/admin/v1/what-if/{job['id']}/subscriptions"))["items"]
    assert (found["periods"], found["after"]["text"]) == (2, "$98.00")
    exported = await reader.get(f"/admin/v1/what-if/{job['id']}/export")
    assert exported.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(exported.text))
    assert (row["account_name"], row["before"], row["difference"]) == ("'=Ada, Ltd", "98.00", "0.00")


async def test_refusals(client: httpx.AsyncClient, client_of, customer):
    no_draft = await client.post("/admin/v1/what-if", json={"plan": "starter"})
    assert (no_draft.status_code, no_draft.json()["code"]) == (404, "plan_draft_not_found")
    assert (await client.post("/admin/v1/what-if", json={**DRAFT, "version": 9})).status_code == 404
    assert (await client.post("/admin/v1/what-if", json={**DRAFT, "months": 13})).status_code == 422
    assert (await client_of("support").post("/admin/v1/what-if", json=DRAFT)).status_code == 403
    assert (await client.get("/admin/v1/what-if/wif_" + "0" * 26 + "/export")).status_code == 404
    assert customer.status == "active"
