"""A client that numbers its calls by path, so that each single one can be found again among the stored events."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp

from devstack.stores.valkey_cluster import open_redis
from gateway_contract import counters, redis_names
from gateway_contract.modes import Mode

BROKEN = 0


@dataclass
class NumberedTraffic:
    """Sends GET /weather/v1/current/<run>-<n> until told to stop; `answers` maps each path to its status."""

    proxy_url: str
    key: str
    run: str
    concurrency: int = 4
    pause_seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def send_until_stopped(self, *, at_most: int = 1_000_000) -> None:
        numbers = iter(itertools.islice(itertools.count(), at_most))
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout, headers={"apikey": self.key}) as session:
            await asyncio.gather(*(self._drain(session, numbers) for _ in range(self.concurrency)))

    async def _drain(self, session, numbers):
        for number in numbers:
            if self.stopping.is_set():
                return
            path = f"/weather/v1/current/{self.run}-{number}"
            try:
                async with session.get(self.proxy_url + path) as answer:
                    await answer.read()
                    self.answers[path] = answer.status
            except (aiohttp.ClientError, TimeoutError):
                # nobody knows whether it was served; it may be stored once, or not at all
                self.answers[path] = BROKEN
                await asyncio.sleep(0.1)
            if self.pause_seconds:
                await asyncio.sleep(self.pause_seconds)

    def by_status(self) -> Counter:
        return Counter(self.answers.values())


async def events_by_path(control, account_ids) -> dict[str, list[int]]:
    """Return the statuses of all stored events of these accounts and of nobody, by path."""
    found: dict[str, list[int]] = {}
    for source in [*(f"/accounts/{account_id}/events" for account_id in account_ids), "/unattributed-events"]:
        async for event in control.pages(source):
            found.setdefault(event["path"], []).append(event["status"])
    return found


async def rollup_calls(control, **by) -> int:
    """Return calls in the rollups, of rows that match (account, status, outcome, ...)."""
    answer = await control.get("/usage", [("group_by", name) for name in ("account", "status", "outcome", "mode")])
    return sum(
        row["calls"] for row in answer["items"] if all(row["by"][name] == str(value) for name, value in by.items())
    )


def counters_of(stack, preview):
    """What the gateway's limit script has counted in the billing period of a preview."""
    start_ms = round(datetime.fromisoformat(preview["period"]["start"]).timestamp() * 1000)
    name = redis_names.period_counters(preview["account_id"], preview["subscription_id"], start_ms, Mode.LIVE)
    with open_redis(stack.redis_url) as store:
        calls, units = store.hmget(name, counters.CALLS, counters.UNITS)
    return {"calls": int(calls), "units": int(units)}


async def get(url: str, key: str | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers (names in lower case) and body of one GET."""
    sent = {"apikey": key, **headers} if key else headers
    async with aiohttp.ClientSession() as session, session.get(url, headers=sent) as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.text()


async def eventually(check, *, seconds: float = 60.0, pause: float = 0.3):
    """Return what `check` returns as soon as it is true, or its last value after the deadline."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        value = await check()
        if value or asyncio.get_running_loop().time() > deadline:
            return value
        await asyncio.sleep(pause)
