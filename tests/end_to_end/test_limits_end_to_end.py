"""Sliding limits through the whole, judged by the times at which the gateway decided."""

import asyncio
from datetime import datetime, timedelta

import pytest

from devstack.demo.scenario import create_customer
from tests.end_to_end.counting import NumberedTraffic, counters_of, eventually, get

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
BURST_SECONDS = 6.0
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def stack(shared_stack):
    return shared_stack


async def free_customer(control):
    """An account on the Free plan as the default catalog has it: 2 a second, 60 a minute, 1,000 a month."""
    account = await control.post("/accounts", {"name": "Nimbus Labs"})
    await control.post(f"/accounts/{account['id']}/subscriptions", {"plan": "free"})
    issued = await control.post(f"/accounts/{account['id']}/keys", {"name": "production", "mode": "live"})
    return account["id"], issued["text"]


async def overridden_customer(control):
    windows = ((3, 1_000), (7, 4_000))
    customer = await create_customer(control, name="Skylark", plan="starter", windows=windows, quota=None)
    return customer.account_id, customer.key


CUSTOMERS = {
    "free plan": (free_customer, ((2, SECOND), (60, MINUTE))),
    "override": (overridden_customer, ((3, SECOND), (7, 4 * SECOND))),
}


def assert_every_decision_was_right(events, windows):
    """Admitted: no window held more than its limit. Refused: one of them was full."""
    decided = sorted((datetime.fromisoformat(event["occurred_at"]), event["outcome"]) for event in events)
    admitted = [at for at, outcome in decided if outcome == "served"]
    for at in admitted:
        for limit, window in windows:
            assert sum(at - window < other <= at for other in admitted) <= limit, (at, limit, window)
    for at, outcome in decided:
        if outcome != "served":
            # the gateway decides by microseconds, of which an event keeps the milliseconds
            full = [
                sum(at - window - MILLISECOND < other <= at for other in admitted) >= limit
                for limit, window in windows
            ]
            assert any(full), (at, windows)


class TestSlidingLimits:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", CUSTOMERS)
    async def test_a_burst_gets_its_limit_in_any_interval_and_refusals_burn_no_quota(self, stack, control, name):
        make, windows = CUSTOMERS[name]
        account_id, key = await make(control)

        async def known():
            return (await get(f"{stack.proxy_url}/weather/v1/current/oslo", key))[0] == 200

        assert await eventually(known, seconds=20, pause=0.1)
        traffic = NumberedTraffic(
            stack.proxy_url, key, run=f"burst-{windows[0][0]}", concurrency=8, pause_seconds=0.1
        )
        sending = asyncio.create_task(traffic.send_until_stopped())
        await asyncio.sleep(BURST_SECONDS)
        traffic.stopping.set()
        await sending
        statuses = traffic.by_status()
        assert statuses.keys() == {200, 429}
        assert statuses[429] > statuses[200]

        async def all_stored():
            events = [event async for event in control.pages(f"/accounts/{account_id}/events")]
            return events if traffic.answers.keys() <= {event["path"] for event in events} else None

        events = await eventually(all_stored)
        assert_every_decision_was_right(events, windows)
        served = sum(event["outcome"] == "served" for event in events)
        assert served == statuses[200] + 1

        async def invoiced():
            preview = await control.get(f"/accounts/{account_id}/invoices/preview/weather")
            return preview if preview["used_units"]["requests"] >= served else None

        preview = await eventually(invoiced)
        assert preview["used_units"] == {"requests": served}
        assert preview["quota"]["used_units"] == served
        assert counters_of(stack, preview) == {"calls": served, "units": served}
