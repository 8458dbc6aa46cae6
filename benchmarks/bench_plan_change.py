"""How soon a change of plan, a pause and a resumption bite: from asking for it to the first call that shows it.

One account calls every 10 ms through the local gateway, which stands in for Kong, while another calls at a steady
rate; each change is asked for by REST, and timed from the moment before it is sent until the first answer that was
given under it. Prints a table and writes JSON to `benchmarks/results/plan_change.json`.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_freshness import first_served, send_steadily

from devstack.demo.control import ControlClient
from devstack.demo.scenario import create_customer
from devstack.stack import temporary_stack

REPOSITORY = Path(__file__).parents[1]
PATH = "/weather/v1/current/oslo"
WIDE = ((5_000, 1_000), (200_000, 60_000))
# as RateLimit-Policy says it, on calls that are served and on those that are refused
PER_SECOND = {"growth": '"per-second";q=50;w=1', "starter": '"per-second";q=10;w=1'}
PAUSED = 403
CALL_EVERY_SECONDS = 0.01
GIVE_UP_SECONDS = 30.0
TARGET_P99_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="each: change, pause, resume")
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second that others send")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "plan_change.json")
    options = parser.parse_args()
    with temporary_stack() as stack:
        seconds = asyncio.run(measure(stack, rounds=options.rounds, rate=options.rate))
    figures = {"rounds": options.rounds, "background_calls_per_second": options.rate}
    for kind, found in seconds.items():
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        figures[f"{kind}_p50_seconds"] = round(cuts[49], 3)
        figures[f"{kind}_p99_seconds"] = round(cuts[98], 3)
        figures[f"{kind}_max_seconds"] = round(max(found), 3)
    for name, value in figures.items():
        print(f"{name:32}{value:>10}")
    slowest = max(figures[f"{kind}_p99_seconds"] for kind in seconds)
    print(f"target p99 {TARGET_P99_SECONDS:.0f} s: {slowest / TARGET_P99_SECONDS:.2f} of it")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


async def measure(stack, *, rounds: int, rate: float) -> dict[str, list[float]]:
    url = f"{stack.proxy_url}{PATH}"
    found: dict[str, list[float]] = defaultdict(list)
    async with ControlClient(stack.control_url, stack.admin_token) as control, aiohttp.ClientSession() as session:
        await control.post("/plans/apply", yaml=(REPOSITORY / "plans.yml").read_text())
        await control.post("/gateway/push")
        prober = await create_customer(control, name="Prober", plan="growth", windows=WIDE, quota=None)
        other = await create_customer(control, name="Others", plan="growth", windows=WIDE, quota=None)
        for customer in (prober, other):
            await first_served(session, url, customer.key)
        held = await control.get(f"/accounts/{prober.account_id}/subscriptions")
        place = f"/subscriptions/{held['items'][0]['id']}"
        await control.post(f"{place}/override", {"windows": None})
        load = asyncio.create_task(send_steadily(session, url, other.key, rate))

        async def timed(kind: str, what: str, body: dict, *, paused: bool, policy: str = "") -> None:
            await asyncio.sleep(random.uniform(0.05, 0.6))
            started = time.perf_counter()
            asked = asyncio.create_task(control.post(f"{place}/{what}", body))
            while not await shows(session, url, prober.key, paused=paused, policy=policy):
                if time.perf_counter() - started > GIVE_UP_SECONDS:
                    raise SystemExit(f"no call showed the {kind} within {GIVE_UP_SECONDS:.0f} s")
                await asyncio.sleep(CALL_EVERY_SECONDS)
            found[kind].append(time.perf_counter() - started)
            await asked

        try:
            for number in range(rounds):
                plan = ("starter", "growth")[number % 2]
                change = {"plan": plan, "at": "now"}
                await timed("change", "change", change, paused=False, policy=PER_SECOND[plan])
                await timed("pause", "pause", {}, paused=True)
                await timed("resume", "resume", {}, paused=False)
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
    return dict(found)


async def shows(session, url: str, key: str, *, paused: bool, policy: str) -> bool:
    async with session.get(url, headers={"apikey": key}) as answer:
        await answer.read()
        in_force = answer.headers.get("RateLimit-Policy", "").split(", ")
        return (answer.status == PAUSED) is paused and (not policy or policy in in_force)


if __name__ == "__main__":
    main()
