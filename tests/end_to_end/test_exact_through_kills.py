"""The client's own count = events stored = rollups = invoice quantity, to the unit, while processes are killed."""

import asyncio

import pytest
import redis

from devstack.demo.scenario import create_customer
from gateway_contract import redis_names
from gateway_contract.api_keys import hash_api_key
from tests.end_to_end.counting import BROKEN, NumberedTraffic, events_by_path, eventually, rollup_calls

KILLED = ("pluginserver", "shipper", "server", "valkey", "postgres", "gateway", "upstream")
WIDE = ((5_000, 1_000), (100_000, 60_000))


@pytest.fixture
async def customer(stack, control):
    """A customer whose key has reached Redis: calls before that get 401, and none must be made here."""
    customer = await create_customer(control, name="Skylark Freight", plan="starter", windows=WIDE, quota=None)
    name = redis_names.key_record(hash_api_key(customer.key))

    async def is_known():
        with redis.Redis.from_url(stack.redis_url) as store:
            return store.exists(name)

    assert await eventually(is_known, pause=0.05)
    return customer


async def assert_counted_once(control, customer, traffic):
    """Every answered call is stored once with its status; a broken one at most once; the sums follow."""
    answered = {path: status for path, status in traffic.answers.items() if status != BROKEN}

    async def all_stored():
        stored = await events_by_path(control, [customer.account_id])
        return stored if answered.keys() <= stored.keys() else None

    stored = await eventually(all_stored, seconds=120)
    assert stored is not None, "answered calls are missing in the event store"
    assert {path: [status] for path, status in answered.items()} == {path: stored[path] for path in answered}
    broken = traffic.answers.keys() - answered.keys()
    assert all(len(stored.get(path, [])) <= 1 for path in broken)

    served = sum(status == 200 for status in answered.values())
    served += sum(stored.get(path) == [200] for path in broken)
    # a caller whose gateway died hung up: such a line is billable too, if it was written
    hung_up = sum(stored.get(path) == [499] for path in broken)

    async def rolled_up():
        return await rollup_calls(control, account=customer.account_id, status=200, outcome="served") >= served

    assert await eventually(rolled_up)
    assert await rollup_calls(control, account=customer.account_id, status=200, outcome="served") == served
    preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
    assert preview["used_units"]["requests"] == served + hung_up
    return served


class TestEveryProcessKilledOnce:
    @pytest.mark.slow
    @pytest.mark.timeout(400)
    async def test_client_events_rollups_and_invoice_agree_to_the_unit(self, stack, control, customer):
        traffic = NumberedTraffic(stack.proxy_url, customer.key, run="kills", concurrency=4, pause_seconds=0.01)
        sending = asyncio.create_task(traffic.send_until_stopped())
        await asyncio.sleep(1.5)
        for name in KILLED:
            await asyncio.to_thread(stack.kill, name)
            await asyncio.to_thread(stack.wait_ready, name)
            await asyncio.sleep(1.5)
        traffic.stopping.set()
        await sending
        statuses = traffic.by_status()
        assert statuses[200] > 500, statuses
        await assert_counted_once(control, customer, traffic)


class TestRedisEmptiedInMidTraffic:
    @pytest.mark.slow
    @pytest.mark.timeout(300)
    async def test_no_count_is_lost_and_km_rebuild_restores_service(self, stack, control, customer):
        traffic = NumberedTraffic(stack.proxy_url, customer.key, run="flush", concurrency=4, pause_seconds=0.01)
        sending = asyncio.create_task(traffic.send_until_stopped())
        await asyncio.sleep(2)
        redis.Redis.from_url(stack.redis_url).flushall()
        await asyncio.to_thread(stack.km, "rebuild")

        flushed_at = len(traffic.answers)

        async def served_again():
            return sum(status == 200 for status in list(traffic.answers.values())[flushed_at:]) > 50

        assert await eventually(served_again)
        traffic.stopping.set()
        await sending
        # never 401: an emptied Redis makes no key unknown
        assert set(traffic.by_status()) <= {200, 503}, traffic.by_status()
        await assert_counted_once(control, customer, traffic)
