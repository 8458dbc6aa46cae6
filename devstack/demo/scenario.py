"""What the demo plays: two accounts on plans of the default catalog, and the calls they send."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from devstack.demo.control import ControlClient
from devstack.demo.ledger import NOBODY
from devstack.demo.traffic import Call, Traffic, weather_calls
from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode

PRODUCT = "weather"
SECOND_MS, MINUTE_MS = 1_000, 60_000

FREE_CALLS = 1_150  # the Free plan's 1,000, then refusals
PAYING_CALLS = 2_400
PACE_PER_SECOND = 85.0
BURST_CALLS = 300
STRANGERS = 100

# A minute cannot hold a month. Overrides are a feature of subscriptions; plans stay as they were published.
FREE_WINDOWS = ((1_000, SECOND_MS), (10_000, MINUTE_MS))
PAYING_WINDOWS = ((100, SECOND_MS), (20_000, MINUTE_MS))
PAYING_QUOTA = 2_000
NOTE = (
    "So that a minute suffices, both subscriptions carry overrides: other per-second and per-minute limits, and a "
    f"quota of {PAYING_QUOTA:,} for the paying one. Plans, prices and the Free plan's 1,000 requests are those of "
    "the default catalog."
)


@dataclass(frozen=True, slots=True)
class Customer:
    """An account that calls. `key` is the text of its only API key."""

    name: str
    account_id: str
    plan_name: str
    key: str
    key_id: str


async def set_up_customers(control: ControlClient) -> tuple[Customer, Customer]:
    """Create the free and the paying account, their subscriptions and keys."""
    free = await create_customer(control, name="Nimbus Labs", plan="free", windows=FREE_WINDOWS, quota=None)
    paying = await create_customer(
        control, name="Skylark Freight", plan="starter", windows=PAYING_WINDOWS, quota=PAYING_QUOTA
    )
    return free, paying


async def create_customer(
    control: ControlClient, *, name: str, plan: str, windows: tuple[tuple[int, int], ...], quota: int | None
) -> Customer:
    account = await control.post("/accounts", {"name": name, "email": "billing@example.com"})
    subscription = await control.post(f"/accounts/{account['id']}/subscriptions", {"plan": plan})
    overrides: dict[str, object] = {
        "windows": [{"limit": limit, "window_ms": window_ms} for limit, window_ms in windows]
    }
    if quota is not None:
        overrides["quota_units"] = quota
    await control.post(f"/subscriptions/{subscription['id']}/override", overrides)
    issued = await control.post(f"/accounts/{account['id']}/keys", {"name": "production", "mode": "live"})
    return Customer(
        name=name,
        account_id=account["id"],
        plan_name=subscription["plan_name"],
        key=issued["text"],
        key_id=issued["key"]["id"],
    )


def planned_requests() -> int:
    """Return how many requests `play` sends."""
    return FREE_CALLS + PAYING_CALLS + BURST_CALLS + 2 * STRANGERS


async def play(traffic: Traffic, free: Customer, paying: Customer, on_answer: Callable[[], None]) -> None:
    """Send everything: strangers, the free account past its quota, the paying one paced and then in a burst."""
    await traffic.send_all(_strangers(paying), on_answer=on_answer)
    await traffic.send_all(weather_calls(caller=free.name, key=free.key, count=FREE_CALLS), on_answer=on_answer)
    await traffic.send_paced(
        weather_calls(caller=paying.name, key=paying.key, count=PAYING_CALLS),
        per_second=PACE_PER_SECOND,
        on_answer=on_answer,
    )
    await traffic.send_all(
        weather_calls(caller=paying.name, key=paying.key, count=BURST_CALLS), on_answer=on_answer
    )


def _strangers(customer: Customer) -> Iterator[Call]:
    """Yield calls with well-formed keys that nobody was given, and with one character of a good key mistyped."""
    for _ in range(STRANGERS):
        yield from weather_calls(caller=NOBODY, key=generate_api_key(Mode.LIVE), count=1)
        place = len("km_live_") + secrets.randbelow(len(customer.key) - len("km_live_"))
        wrong = "x" if customer.key[place] != "x" else "y"
        mistyped = customer.key[:place] + wrong + customer.key[place + 1 :]
        yield from weather_calls(caller=NOBODY, key=mistyped, count=1)
