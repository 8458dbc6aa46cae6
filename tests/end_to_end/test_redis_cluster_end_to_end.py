"""The whole product on a Redis Cluster that loses primaries: calls served, limited, revoked, and counted once."""

import asyncio

import pytest

from devstack.demo.control import ControlClient
from devstack.demo.scenario import create_customer
from devstack.stack import temporary_stack
from gateway_contract import redis_names
from tests.end_to_end.conftest import PLANS
from tests.end_to_end.counting import NumberedTraffic, counters_of, eventually, get
from tests.end_to_end.test_exact_through_kills import WIDE, assert_counted_once

FAILED_OVER = 30


@pytest.fixture
def stack():
    with temporary_stack(fast=True, redis="cluster") as running:
        yield running


@pytest.fixture
async def control(stack):
    async with ControlClient(stack.control_url, stack.admin_token) as client:
        await client.post("/plans/apply", yaml=PLANS.read_text())
        await client.post("/gateway/push")
        yield client


def name_of_primary(stack, slot):
    return f"valkey-{stack.redis_cluster.nodes.index(stack.redis_cluster.primary_of(slot))}"


async def assert_limited_and_revoked(control, stack, name):
    """A customer of two calls a minute gets two; with a revoked key, none."""
    limited = await create_customer(control, name=name, plan="starter", windows=((2, 60_000),), quota=None)
    url = f"{stack.proxy_url}/weather/v1/current/{name}"

    async def is_known():
        return (await get(url, limited.key))[0] == 200

    assert await eventually(is_known, pause=0.1)
    assert [(await get(url, limited.key))[0] for _ in range(3)] == [200, 429, 429]
    keys = await control.get(f"/accounts/{limited.account_id}/keys")
    await control.post(f"/keys/{keys['items'][0]['id']}/revoke")

    async def is_refused():
        return (await get(url, limited.key))[0] == 401

    assert await eventually(is_refused, seconds=10, pause=0.05)


class TestPrimaryLost:
    @pytest.mark.slow
    @pytest.mark.timeout(300)
    async def test_calls_go_on_and_every_one_is_counted_once(self, stack, control):
        customer = await create_customer(control, name="Skylark", plan="starter", windows=WIDE, quota=None)
        await assert_limited_and_revoked(control, stack, "before")
        traffic = NumberedTraffic(stack.proxy_url, customer.key, run="cluster", concurrency=4, pause_seconds=0.01)
        sending = asyncio.create_task(traffic.send_until_stopped())
        await asyncio.sleep(3)
        slots = {
            redis_names.slot_of(redis_names.account_record(customer.account_id)),
            redis_names.slot_of(redis_names.usage_stream(0)),
        }
        for slot in slots:
            lost = name_of_primary(stack, slot)
            await asyncio.to_thread(stack.hold, lost)

            async def has_failed_over(slot=slot, lost=lost):
                return await asyncio.to_thread(name_of_primary, stack, slot) != lost

            assert await eventually(has_failed_over, seconds=FAILED_OVER)
            await asyncio.sleep(2)
            stack.release(lost)
            await asyncio.to_thread(stack.wait_ready, lost)
            await asyncio.to_thread(stack.redis_cluster.wait_whole)
        traffic.stopping.set()
        await sending
        assert set(traffic.by_status()) <= {200, 503}, traffic.by_status()
        served = await assert_counted_once(control, customer, traffic)
        preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")

        async def counted():
            return (await asyncio.to_thread(counters_of, stack, preview))["calls"] <= served

        assert await eventually(counted)
        await assert_limited_and_revoked(control, stack, "after")
