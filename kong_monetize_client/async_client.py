"""The client for programs with an asyncio event loop."""

import asyncio
import contextlib
import time as clock
from collections.abc import Mapping
from datetime import datetime
from math import inf
from types import TracebackType
from typing import Self

import httpx

from kong_monetize_client.client import CLOSE_TIMEOUT_SECONDS
from kong_monetize_client.errors import FlushTimeoutError
from kong_monetize_client.options import Options
from kong_monetize_client.reports import Reports, endpoint_of, headers_of
from kong_monetize_client.sender import Request, Sender

_LONGEST_WAIT_SECONDS = 60.0


class AsyncClient:
    """Does what `Client` does, with a task instead of a thread. To be made and used within one event loop."""

    def __init__(self, url: str, token: str, *, source: str, options: Options | None = None) -> None:
        """See `Client`; raises the same. Needs a running event loop."""
        self._endpoint, headers = endpoint_of(url), headers_of(token)
        self._reports = Reports(source)
        self._options = options or Options()
        self._sender = Sender(self._options)
        self._http = httpx.AsyncClient(
            headers=headers, timeout=self._options.timeout_seconds, follow_redirects=False
        )
        self._changed = asyncio.Event()
        self._judged = asyncio.Condition()
        self._flush_up_to = 0
        self._close_by = inf
        self._task = asyncio.get_running_loop().create_task(self._run(), name="kong-monetize-client")

    def __repr__(self) -> str:
        return f"<AsyncClient {self._endpoint} waiting={self._sender.waiting}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """How many events the server has not judged yet."""
        return self._sender.waiting

    async def report(
        self,
        event_type: str,
        *,
        subject: str,
        units: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        product: str | None = None,
        mode: str | None = None,
        endpoint: str | None = None,
        id: str | None = None,  # noqa: A002 - the word that CloudEvents has for it
        time: datetime | None = None,
    ) -> str:
        """Keep an event for sending and return its id; see `Client.report`. The network is not waited for."""
        event_id, line = self._reports.encode(
            event_type,
            subject=subject,
            units=units,
            properties=properties,
            product=product,
            mode=mode,
            endpoint=endpoint,
            id=id,
            time=time,
        )
        now = clock.monotonic()
        if self._options.fsync == "always":
            wake = await asyncio.to_thread(self._sender.add, line, now)
        else:
            wake = self._sender.add(line, now)
        if wake:
            self._changed.set()
        return event_id

    async def flush(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - as the other client has it
        """Send everything that was reported until now; see `Client.flush`.

        Raises:
            FlushTimeoutError: it took longer; the sending goes on.
        """
        target = self._sender.added
        self._flush_up_to = max(self._flush_up_to, target)
        self._changed.set()
        try:
            async with asyncio.timeout(timeout), self._judged:
                await self._judged.wait_for(lambda: self._sender.settled >= target)
        except TimeoutError:
            raise FlushTimeoutError(target - self._sender.settled) from None

    async def close(self, timeout: float = CLOSE_TIMEOUT_SECONDS) -> int:  # noqa: ASYNC109 - as the other has it
        """Send what waits, for `timeout` seconds at most, and stop; see `Client.close`."""
        self._close_by = min(self._close_by, clock.monotonic() + timeout)
        self._changed.set()
        _, late = await asyncio.wait({self._task}, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        left = self._sender.close()
        await self._http.aclose()
        return left

    async def _run(self) -> None:
        while (request := await self._next_request()) is not None:
            await self._send(request)
            async with self._judged:
                self._judged.notify_all()

    async def _next_request(self) -> Request | None:
        while True:
            self._changed.clear()
            now = clock.monotonic()
            closing = self._close_by < inf
            if now >= self._close_by:
                return None
            at_once = closing or self._sender.settled < self._flush_up_to
            found = self._sender.next(now, at_once=at_once)
            if isinstance(found, Request):
                return found
            if closing and found == inf:
                return None
            pause = min(found, self._close_by - now, _LONGEST_WAIT_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause)

    async def _send(self, request: Request) -> None:
        try:
            answer = await self._http.post(self._endpoint, content=request.body)
        except Exception as error:  # noqa: BLE001 - whatever it was, the events are still to be sent
            self._sender.fail(f"no answer: {type(error).__name__}: {error}", clock.monotonic())
        else:
            self._sender.settle(request, answer.status_code, answer.headers, answer.content, clock.monotonic())
