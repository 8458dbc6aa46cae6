"""Freshness: from sending a request to seeing it in GET /admin/v1/usage, through the whole local stack.

One account probes: it sends a call, then asks for its figures until the call is in them. Another sends calls at a
steady rate meanwhile. The asking (one question each 25 ms) is part of the load. The local gateway stands in for
Kong. Prints a table and writes JSON to `benchmarks/results/freshness.json`.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))

from devstack.demo.control import ControlClient
from devstack.demo.scenario import create_customer
from devstack.stack import temporary_stack

REPOSITORY = Path(__file__).parents[1]
PATH = "/weather/v1/current/oslo"
WIDE = ((5_000, 1_000), (200_000, 60_000))
ASK_EVERY_SECONDS = 0.025
GIVE_UP_SECONDS = 30.0
TARGET_P99_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=150)
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second that others send")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "freshness.json")
    options = parser.parse_args()
    with temporary_stack() as stack:
        seconds = asyncio.run(measure(stack, probes=options.probes, rate=options.rate))
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    figures = {
        "probes": len(seconds),
        "background_calls_per_second": options.rate,
        "p50_seconds": round(cuts[49], 3),
        "p90_seconds": round(cuts[89], 3),
        "p99_seconds": round(cuts[98], 3),
        "max_seconds": round(max(seconds), 3),
    }
    for name, value in figures.items():
        print(f"{name:32}{value:>10}")
    print(f"target p99 {TARGET_P99_SECONDS:.0f} s: {figures['p99_seconds'] / TARGET_P99_SECONDS:.2f} of it")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


async def measure(stack, *, probes: int, rate: float) -> list[float]:
    url = f"{stack.proxy_url}{PATH}"
    async with ControlClient(stack.control_url, stack.admin_token) as control, aiohttp.ClientSession() as session:
        await control.post("/plans/apply", yaml=(REPOSITORY / "plans.yml").read_text())
        await control.post("/gateway/push")
        prober = await create_customer(control, name="Prober", plan="growth", windows=WIDE, quota=None)
        other = await create_customer(control, name="Others", plan="growth", windows=WIDE, quota=None)
        for customer in (prober, other):
            await first_served(session, url, customer.key)
        load = asyncio.create_task(send_steadily(session, url, other.key, rate))
        await asyncio.sleep(2)
        try:
            return [await probe(session, control, url, prober) for _ in range(probes)]
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)


async def probe(session, control, url: str, customer) -> float:
    """Return the seconds from sending a call until the usage of its account shows one more."""
    before = await calls_of(control, customer.account_id)
    # away from the beat of anything that looks at intervals
    await asyncio.sleep(random.uniform(0.05, 0.6))
    before = max(before, await calls_of(control, customer.account_id))
    started = time.perf_counter()
    await get(session, url, customer.key)
    while time.perf_counter() - started < GIVE_UP_SECONDS:
        if await calls_of(control, customer.account_id) > before:
            return time.perf_counter() - started
        await asyncio.sleep(ASK_EVERY_SECONDS)
    raise SystemExit(f"a call was not visible after {GIVE_UP_SECONDS:.0f} s")


async def calls_of(control, account_id: str) -> int:
    """Read the endpoint of all accounts, as a dashboard does."""
    answer = await control.get("/usage", [("group_by", "account")])
    return sum(row["calls"] for row in answer["items"] if row["by"]["account"] == account_id)


async def send_steadily(session, url: str, key: str, rate: float) -> None:
    beginning, sent = time.perf_counter(), 0
    while True:
        sent += 1
        await get(session, url, key)
        await asyncio.sleep(max(0.0, beginning + sent / rate - time.perf_counter()))


async def first_served(session, url: str, key: str) -> None:
    """Wait until the gateway knows the key, and what was sent for that has been counted."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while await get(session, url, key) != 200:
        if time.monotonic() > deadline:
            raise SystemExit("the gateway serves no call")
        await asyncio.sleep(0.1)
    await asyncio.sleep(3)


async def get(session, url: str, key: str) -> int:
    async with session.get(url, headers={"apikey": key}) as answer:
        await answer.read()
        return answer.status


if __name__ == "__main__":
    main()
