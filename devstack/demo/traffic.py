"""Sends real HTTP requests through the gateway and enters each answer in the ledger."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from devstack.demo.ledger import Answer, Ledger

SHOWN_HEADERS = (
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Kong-Request-Id",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send. `endpoint` is the catalog's name of it: method and path template."""

    caller: str
    key: str
    method: str
    path: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused call as the caller saw it, kept to be shown."""

    request: str
    status: int
    code: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class Traffic:
    """An HTTP client with a ledger. Use as an async context manager."""

    proxy_url: str
    concurrency: int = 16
    ledger: Ledger = field(default_factory=Ledger)
    refusals: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self.concurrency)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send_all(self, calls: Iterable[Call], *, on_answer: Callable[[], None] | None = None) -> None:
        """Send the calls, `concurrency` at a time, in the order given."""
        queue = iter(calls)
        await asyncio.gather(*(self._drain(queue, on_answer) for _ in range(self.concurrency)))

    async def send_paced(
        self, calls: Iterable[Call], *, per_second: float, on_answer: Callable[[], None] | None = None
    ) -> None:
        """Send the calls evenly at a pace, each without waiting for the one before."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, call in enumerate(calls):
                await asyncio.sleep(max(0.0, started + number / per_second - loop.time()))
                group.create_task(self._send(call, on_answer))

    async def _drain(self, queue: Iterator[Call], on_answer: Callable[[], None] | None) -> None:
        for call in queue:
            await self._send(call, on_answer)

    async def _send(self, call: Call, on_answer: Callable[[], None] | None) -> None:
        if self._session is None:
            raise RuntimeError("use Traffic as an async context manager")
        headers = {"apikey": call.key} if call.key else {}
        try:
            async with self._session.request(call.method, self.proxy_url + call.path, headers=headers) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            # Nobody knows whether such a call was served: it stands apart and is named in the report.
            self.ledger.broken += 1
            return
        code = "served"
        if answer.content_type == "application/problem+json":
            problem = json.loads(body)
            code = problem["code"]
            self._keep(call, answer, code, problem)
        self.ledger.add(Answer(caller=call.caller, endpoint=call.endpoint, status=answer.status, code=code))
        if on_answer is not None:
            on_answer()

    def _keep(self, call: Call, answer: aiohttp.ClientResponse, code: str, problem: dict[str, Any]) -> None:
        self.refusals.setdefault(
            (call.caller, code),
            Refusal(
                request=f"{call.method} {call.path}",
                status=answer.status,
                code=code,
                headers={name: answer.headers[name] for name in SHOWN_HEADERS if name in answer.headers},
                body=problem,
            ),
        )


CITIES = ("oslo", "lagos", "lima", "osaka", "turin", "quito", "perth", "delhi")

# Of twenty calls: method, path with the city to be filled in, and the catalog's name of the endpoint.
_CURRENT = ("GET", "/weather/v1/current/{city}", "GET /weather/v1/current/{city}")
_FORECAST = ("GET", "/weather/v1/forecast/{city}", "GET /weather/v1/forecast/{city}")
_REPORT = ("POST", "/weather/v1/reports", "POST /weather/v1/reports")
_NOT_FOUND = ("GET", "/weather/v1/status/404", "GET /weather/v1/status/{code}")
_FAILURE = ("GET", "/weather/v1/status/500", "GET /weather/v1/status/{code}")
MIX = (
    *[_CURRENT] * 6,
    _FORECAST,
    _REPORT,
    *[_CURRENT] * 4,
    _FORECAST,
    _NOT_FOUND,
    *[_CURRENT] * 3,
    *[_FORECAST] * 2,
    _FAILURE,
)


def weather_calls(*, caller: str, key: str, count: int) -> Iterator[Call]:
    """Yield a mix of calls to the sample API: mostly current weather, some forecasts, reports and errors."""
    kinds, cities = itertools.cycle(MIX), itertools.cycle(CITIES)
    for (method, path, endpoint), city in itertools.islice(zip(kinds, cities, strict=False), count):
        yield Call(caller=caller, key=key, method=method, path=path.format(city=city), endpoint=endpoint)
