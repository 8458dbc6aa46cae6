"""Changes of a subscription, as its caller meets them at the gateway."""

import asyncio
import contextlib
import json
from datetime import timedelta

import pytest

from control_plane.foundation.clock import floor_ms, to_ms, utc_now
from control_plane.foundation.db import create_engine, session_factory
from control_plane.subscriptions.operations import change_plan
from gateway_contract.headers import RATE_LIMIT_POLICY, RECEIPT
from gateway_contract.receipts import read_receipt
from gateway_contract.redis_names import account_record
from tests.end_to_end.counting import eventually, get, open_redis

AHEAD = timedelta(seconds=3)
# of the shipped catalogue: limits by the second
WINDOWS = {"free": '"per-second";q=2;', "starter": '"per-second";q=10;', "growth": '"per-second";q=50;'}


@pytest.fixture
def stack(shared_stack):
    return shared_stack


class Caller:
    """A customer on Starter who calls."""

    def __init__(self, stack, account, subscription, key):
        self.stack, self.account_id, self.subscription_id = stack, account["id"], subscription["id"]
        self._key = key["text"]

    @classmethod
    async def create(cls, stack, control):
        account = await control.post("/accounts", {"name": "Skylark"})
        path = f"/accounts/{account['id']}"
        subscription = await control.post(f"{path}/subscriptions", {"plan": "starter"})
        return cls(stack, account, subscription, await control.post(f"{path}/keys", {"name": "k", "mode": "live"}))

    async def call(self):
        """Return what the call got (a plan, or the code of a refusal), and when the gateway decided it (ms)."""
        status, headers, body = await get(f"{self.stack.proxy_url}/weather/v1/current/oslo", self._key)
        if status not in {200, 429}:
            return json.loads(body)["code"], 0
        policy = headers[RATE_LIMIT_POLICY.lower()]
        plan = next(plan for plan, window in WINDOWS.items() if policy.startswith(window))
        return plan, read_receipt(headers[RECEIPT.lower()]).decided_at_ms

    async def holds_ahead(self, moment):
        with contextlib.closing(open_redis(self.stack.redis_url)) as client:
            record = json.loads(client.get(account_record(self.account_id)))
        following = record["products"]["weather"]["next"]
        return following is not None and following["starts_at_ms"] == to_ms(moment)

    async def gets(self, wanted):
        async def holds():
            return (await self.call())[0] == wanted

        assert await eventually(holds, seconds=30, pause=0.05), (wanted, await self.call())


class TestChanges:
    @pytest.mark.slow
    async def test_bite_when_they_are_made_and_planned_ones_at_their_very_moment(self, stack, control):
        caller = await Caller.create(stack, control)
        path = f"/subscriptions/{caller.subscription_id}"
        await caller.gets("starter")
        await control.post(f"{path}/change", {"plan": "growth", "at": "now"})
        await caller.gets("growth")
        await control.post(f"{path}/pause")
        await caller.gets("subscription_paused")
        await control.post(f"{path}/resume")
        await caller.gets("growth")

        moment = floor_ms(utc_now() + AHEAD)
        engine = create_engine(stack.database_url, application_name="test")
        async with session_factory(engine)() as session, session.begin():
            await change_plan(
                session,
                subscription_id=caller.subscription_id,
                plan_code="free",
                effective_at=moment,
                actor="test",
                now=utc_now(),
            )
        await engine.dispose()

        async def told():
            return await caller.holds_ahead(moment)

        assert await eventually(told, seconds=30, pause=0.05)
        found = []
        while utc_now() < moment + timedelta(seconds=1):
            found.append(await caller.call())
            await asyncio.sleep(0.02)
        # to the millisecond: no push would be so quick
        assert {plan for plan, _ in found} <= {"growth", "free"}
        assert [plan for plan, at_ms in found] == [
            "free" if at_ms >= to_ms(moment) else "growth" for _, at_ms in found
        ]
        assert found[-1][0] == "free"
