"""A killed gateway's call is named with number, time and node; customers verify sealed usage by their receipts.

Redis runs two hours behind everybody else: calls fall into an hour that has long ended, so it is sealed at once.
"""

import asyncio
import base64
import importlib.util
import re
from pathlib import Path

import aiohttp
import psycopg
import pytest

from devstack.children import ChildFailedError, start_child
from devstack.demo.control import ControlClient
from devstack.demo.scenario import create_customer
from devstack.stack import temporary_stack
from gateway_contract import redis_names
from gateway_contract.api_keys import hash_api_key
from gateway_contract.headers import RECEIPT
from gateway_contract.receipts import read_receipt
from tests.end_to_end.conftest import PLANS
from tests.end_to_end.counting import eventually, open_redis

WIDE = ((5_000, 1_000), (100_000, 60_000))
BEHIND = {
    "FAKETIME": "-2h",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
}


@pytest.fixture
def stack(monkeypatch):
    spec = importlib.util.find_spec("libfaketime")
    library = Path(spec.submodule_search_locations[0]) / "vendor/libfaketime/src/libfaketime.so.1"

    def start_behind(argv, *, env, **more):
        return start_child(argv, env={**env, "LD_PRELOAD": str(library), **BEHIND}, **more)

    monkeypatch.setattr("devstack.stores.valkey.start_child", start_behind)
    with temporary_stack(fast=True, settings={"KM_HOUR_LATENESS_SECONDS": "0"}) as running:
        yield running


@pytest.fixture
async def control(stack):
    async with ControlClient(stack.control_url, stack.admin_token) as client:
        await client.post("/plans/apply", yaml=PLANS.read_text())
        await client.post("/gateway/push")
        yield client


@pytest.fixture
async def customer(stack, control):
    """A customer of a day's standing, whom the gateway knows."""
    customer = await create_customer(control, name="Skylark Freight", plan="starter", windows=WIDE, quota=None)
    with psycopg.connect(stack.database_url.replace("+psycopg", "")) as connection:
        connection.execute("UPDATE subscriptions SET started_at = started_at - interval '1 day'")
        connection.execute("UPDATE subscriptions SET anchor_at = anchor_at - interval '1 day'")
        connection.execute("UPDATE subscription_phases SET starts_at = starts_at - interval '1 day'")
        connection.commit()
    await asyncio.to_thread(stack.km, "rebuild")
    name = redis_names.key_record(hash_api_key(customer.key))

    async def is_known():
        with open_redis(stack.redis_url) as store:
            return store.exists(name)

    assert await eventually(is_known, pause=0.05)
    return customer


async def call(stack, customer, path="/weather/v1/current/oslo"):
    """Make one call and return its receipt."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers={"apikey": customer.key}) as session,
        session.get(stack.proxy_url + path) as answer,
    ):
        text = await answer.text()
        assert answer.status == 200, text
        return answer.headers[RECEIPT]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_lost_call_is_named_and_the_others_are_verified(stack, control, customer, tmp_path):
    receipts = [await call(stack, customer) for _ in range(5)]
    killed = asyncio.create_task(call(stack, customer, "/weather/v1/slow?ms=15000"))
    before = read_receipt(receipts[-1])

    async def is_under_way():
        period = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
        with open_redis(stack.redis_url) as store:
            names = list(store.scan_iter(f"*{{{customer.account_id}}}:period:{period['subscription_id']}:*:live"))
            return [name for name in names if int(store.hget(name, "calls")) == before.call_number + 1]

    assert await eventually(is_under_way, pause=0.05)
    await asyncio.to_thread(stack.kill, "gateway")
    with pytest.raises(aiohttp.ClientError):
        await killed
    await asyncio.to_thread(stack.wait_ready, "gateway")
    await asyncio.to_thread(stack.wait_ready, "pluginserver")
    receipts += [await call(stack, customer) for _ in range(5)]

    # 1. the lost call
    async def is_told():
        page = await control.get("/completeness", {"account_id": customer.account_id, "state": "missing"})
        # the hour is sealed again once the later calls are in it
        return [gap for row in page["items"] for gap in row["missing"] if gap["before"] is not None]

    (gap,) = await eventually(is_told)
    lost = before.call_number + 1
    assert (gap["first"], gap["last"]) == (lost, lost)
    assert gap["after"] is not None
    assert any(before.emitter in node for node in gap["nodes"]), gap["nodes"]
    ranges = await asyncio.to_thread(stack.km, "usage", "completeness", customer.account_id, "--ranges")
    assert f"\t{lost}\t{lost}\t" in ranges
    password = base64.b64encode(f"operator:{stack.admin_token}".encode())
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Basic {password.decode()}"}) as session,
        session.get(f"{stack.control_url}/admin/completeness") as answer,
    ):
        assert "Calls or figures are missing" in await answer.text()

    # 2. what was answered is in usage, as the receipts say
    saved = tmp_path / "receipts.txt"
    saved.write_text("\n".join(receipts))
    proofs = tmp_path / "proofs.json"

    async def is_verified():
        said = await asyncio.to_thread(stack.km, "verify", str(saved), "--save", str(proofs))
        return said if "10 verified" in said else None

    said = await eventually(is_verified)
    assert said.endswith("verified\n")
    assert "0 events in these hours without a receipt" in said
    offline = await asyncio.to_thread(stack.km, "verify", str(saved), "--from", str(proofs))
    assert offline == said
    trusted = re.search(r"(\d+:[0-9a-f]{64})", said)[1]
    assert await asyncio.to_thread(stack.km, "verify", str(saved), "--trusted", trusted)

    # 3. a receipt that is not in usage, and one that says otherwise
    forged = receipts[0].split(".")
    forged[10] = "7"
    saved.write_text("\n".join([".".join(forged), *receipts[1:]]))
    with pytest.raises(ChildFailedError, match="NOT verified"):
        await asyncio.to_thread(stack.km, "verify", str(saved))
    never = receipts[0].split(".")
    never[2] = "999999"
    saved.write_text("\n".join([".".join(never), *receipts]))
    with pytest.raises(ChildFailedError, match="1 not in usage"):
        await asyncio.to_thread(stack.km, "verify", str(saved))
