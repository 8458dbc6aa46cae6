"""Spend caps and prepaid credits through the whole: the gateway stops where money does, until there is more."""

import asyncio
import json
from pathlib import Path

import pytest

from devstack.demo.control import ControlClient
from devstack.stack import temporary_stack
from tests.end_to_end.counting import eventually, get

PLANS = Path(__file__).parents[2] / "plans.yml"
UNITS = "unit_headers: { tokens: x-usage-tokens }"
CHAT = """
  - code: chat
    name: Chat
    api_product: weather
    position: 9
    prices:
      - { model: flat, amount: "1.00" }
      - { model: per_unit, meter: requests, unit_amount: "0.001" }
      - { model: per_unit, meter: tokens, unit_amount: "0.0001" }
  - code: prepaid
    name: Prepaid
    api_product: weather
    position: 10
    payment: prepaid
    prices:
      - { model: per_unit, meter: requests, unit_amount: "0.01" }
"""
FAST = [{"limit": 1000, "window_ms": 1000}]


@pytest.fixture(scope="module")
def stack():
    """A stack of its own: its catalogue declares the most tokens that a call reports, and sells by tokens."""
    with temporary_stack(fast=True) as running:
        yield running


@pytest.fixture
async def control(stack):
    text = PLANS.read_text().replace(UNITS, UNITS + "\n    unit_maximums: { weather: { tokens: 1000 } }") + CHAT
    async with ControlClient(stack.control_url, stack.admin_token) as client:
        await client.post("/plans/apply", yaml=text)
        await client.post("/gateway/push")
        yield client


class Customer:
    """One account with a key and a subscription with a spend cap."""

    def __init__(self, stack, control, account_id: str, subscription_id: str) -> None:
        self._stack = stack
        self._control = control
        self._account_id = account_id
        self._subscription_id = subscription_id
        self._key = ""

    @classmethod
    async def create(
        cls, stack, control, *, plan: str, cap: str = "", credits_worth: str = "", quota_units: int | None = None
    ) -> "Customer":
        account = await control.post("/accounts", {"name": f"Capped on {plan}"})
        subscription = await control.post(f"/accounts/{account['id']}/subscriptions", {"plan": plan})
        overrides = {"windows": FAST} | ({} if quota_units is None else {"quota_units": quota_units})
        await control.post(f"/subscriptions/{subscription['id']}/override", overrides)
        customer = cls(stack, control, account["id"], subscription["id"])
        if cap:
            await customer.set_cap(cap)
        if credits_worth:
            await customer.grant(credits_worth)
        # last: whoever knows the key knows the cap
        issued = await control.post(f"/accounts/{account['id']}/keys", {"name": "server", "mode": "live"})
        customer._key = issued["text"]
        return customer

    async def set_cap(self, amount: str) -> None:
        answer = await self._control.put(f"/subscriptions/{self._subscription_id}/spend-cap", {"amount": amount})
        assert answer["effective"]

    async def grant(self, amount: str) -> None:
        await self._control.post(f"/accounts/{self._account_id}/credits/grants", {"amount": amount})

    async def call(self, path: str) -> tuple[int, dict]:
        status, _, body = await get(f"{self._stack.proxy_url}/weather{path}", self._key)
        return status, json.loads(body)

    async def known(self) -> bool:
        """Say whether a call is served: key and cap have arrived. It counts as every call does."""
        return (await self.call("/v1/current/oslo"))[0] == 200

    async def preview(self) -> dict:
        path = f"/accounts/{self._account_id}/invoices/preview/weather"
        return await self._control.get(path)

    async def admitted(self, path: str, *, at_most: int = 60) -> int:
        """Call until refused; return how many were served. Whoever refuses must name the spend cap."""
        for served in range(at_most):
            status, body = await self.call(path)
            if status != 200:
                assert (status, body["code"]) == (429, "spend_cap_reached"), body
                return served
        raise AssertionError(f"{at_most} calls, and the cap was not reached")


class TestCapInUnits:
    async def test_stops_where_the_invoice_would_pass_it_and_goes_on_when_it_is_raised(self, stack, control):
        # three calls are included; $49.02 leaves 2 cents, and 16 calls at $0.0015 still round to 2
        customer = await Customer.create(stack, control, plan="starter", cap="49.02", quota_units=3)
        assert await eventually(customer.known, seconds=20, pause=0.1)
        served = 1 + await customer.admitted("/v1/current/oslo")
        assert served == 3 + 16

        async def counted():
            return (await customer.preview())["used_units"]["requests"] == served

        assert await eventually(counted, seconds=30)
        preview = await customer.preview()
        assert preview["total"]["text"] == preview["spend_cap"]["cap"]["text"] == "$49.02"
        assert preview["spend_cap"]["left"]["amount_minor"] == 0

        await customer.set_cap("49.03")
        assert await eventually(customer.known, seconds=10, pause=0.1)
        assert 1 + await customer.admitted("/v1/current/oslo") == 23 - 16  # 23 at $0.0015 round to 3 cents


class TestCapOfSeveralPrices:
    async def test_reserves_what_a_call_may_report_and_never_lets_the_invoice_pass_it(self, stack, control):
        # 35 cents by use; a call may report 1,000 tokens, so it reserves 10 cents and a tenth of one
        customer = await Customer.create(stack, control, plan="chat", cap="1.35")
        served = 0

        async def known():
            nonlocal served
            status, _ = await customer.call("/v1/tokens?n=100")
            served += status == 200
            return status == 200

        assert await eventually(known, seconds=20, pause=0.1)
        served += await customer.admitted("/v1/tokens?n=100")
        assert served == 3

        async def counted():
            return (await customer.preview())["used_units"].get("tokens") == served * 100

        assert await eventually(counted, seconds=30)
        preview = await customer.preview()
        assert preview["total"]["amount_minor"] <= preview["spend_cap"]["cap"]["amount_minor"]

        await customer.set_cap("1.45")

        async def served_again():
            return (await customer.call("/v1/tokens?n=1000"))[0] == 200

        assert await eventually(served_again, seconds=10, pause=0.1)
        assert await customer.admitted("/v1/tokens?n=1000") == 0


class TestPrepaidCredits:
    async def test_for_so_many_calls_serve_so_many_however_many_call_at_once(self, stack, control):
        customer = await Customer.create(stack, control, plan="prepaid", credits_worth="0.40")
        assert await eventually(customer.known, seconds=20, pause=0.1)

        async def caller():
            for served in range(60):
                status, body = await customer.call("/v1/current/oslo")
                if status != 200:
                    assert (status, body["code"]) == (402, "credits_used_up"), body
                    return served
            raise AssertionError("60 calls, and the credits were not used up")

        assert 1 + sum(await asyncio.gather(*(caller() for _ in range(32)))) == 40
        await customer.grant("0.03")
        assert await eventually(customer.known, seconds=10, pause=0.1)
        assert sum(await asyncio.gather(*(caller() for _ in range(8)))) == 2
