"""The way to Stripe: httpx under the SDK, paced, with our own patience for 429.

Everything goes through here, further pages of lists and the SDK's own repetitions too, so that nothing can be
faster than Stripe allows. Nothing is told of the machine we run on.
"""

import asyncio
import json
import random
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NoReturn

import httpx
import stripe as sdk

from control_plane.stripe_sync.pacing import TokenBucket

BUSY: Final = 429
METER_EVENTS: Final = ("/v1/billing/meter_events", "/v2/billing/meter_events")
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 8.0


class PacedTransport(sdk.HTTPClient):
    """Sends requests in their turn; repeats what was answered 429, with the same headers."""

    name = "httpx"

    def __init__(
        self,
        *,
        timeout_seconds: float,
        requests_per_second: float,
        meter_events_per_second: float,
        busy_tries: int,
        first_pause_seconds: float,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        super().__init__()
        self._http = httpx.AsyncClient(timeout=timeout_seconds, transport=transport, verify=_certificates())
        self._busy_tries = busy_tries
        self._first_pause = first_pause_seconds
        self._bucket = TokenBucket(requests_per_second, clock=time.monotonic)
        # usage has a limit of its own, but a test key's counts with everything else
        same = meter_events_per_second <= requests_per_second
        self._meter_bucket = self._bucket if same else TokenBucket(meter_events_per_second, clock=time.monotonic)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send a request of the SDK's and return its answer."""
        bucket = self._meter_bucket if httpx.URL(url).path in METER_EVENTS else self._bucket
        pause = self._first_pause
        for attempt in range(1, self._busy_tries + 1):
            await bucket.wait()
            response = await self._send(method, url, headers or {}, post_data)
            if response.status_code != BUSY or attempt == self._busy_tries:
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        return response.content, response.status_code, response.headers

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> httpx.Response:
        try:
            return await self._http.request(method, url, headers=_plain(headers), content=body or None)
        except httpx.HTTPError as error:
            raise _connection_error(type(error).__name__) from error

    def sleep_async(self, secs: float) -> Any:
        return asyncio.sleep(secs)

    def request(self, *_args: Any, **_options: Any) -> NoReturn:
        message = "Stripe is only asked asynchronously here"
        raise RuntimeError(message)

    async def close_async(self) -> None:
        await self._http.aclose()


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Return whom to trust; read once, since that takes longer than a request."""
    return httpx.create_ssl_context()


def _connection_error(message: str) -> sdk.APIConnectionError:
    make: Any = sdk.APIConnectionError  # the SDK leaves its parameters untyped
    error: sdk.APIConnectionError = make(message, should_retry=True)
    return error


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers without what the SDK tells of whoever runs it."""
    plain = {name: value for name, value in headers.items() if name != "X-Stripe-Client-Telemetry"}
    if (agent := plain.get("User-Agent")) is not None:
        plain["User-Agent"] = agent.partition(" AIAgent/")[0]
    if (told := plain.get("X-Stripe-Client-User-Agent")) is not None:
        facts = json.loads(told)
        kept = ("bindings_version", "lang", "lang_version", "httplib")
        plain["X-Stripe-Client-User-Agent"] = json.dumps({name: facts[name] for name in kept if name in facts})
    return plain
