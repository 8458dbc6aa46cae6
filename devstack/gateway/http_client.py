"""The HTTP/1.1 client side: kept-alive connections to upstreams, answers streamed as they come."""

import asyncio
import contextlib
import time
from collections import deque
from typing import cast

import httptools

from devstack.gateway.body import BodyStream
from devstack.gateway.headers import Headers

IDLE_SECONDS = 60.0
MAX_IDLE_PER_TARGET = 512


class UpstreamError(Exception):
    """The upstream could not be reached, left, or spoke no HTTP."""


class UpstreamConnectError(UpstreamError):
    """No connection was made: nothing was sent."""


class UpstreamTimeoutError(UpstreamError):
    """The upstream was too slow."""


class UpstreamConnection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: list[tuple[bytes, bytes]] = []
        self._head_ready: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._method = ""
        self._interim = False
        self.status = 0
        self.headers = Headers()
        self.body = BodyStream(self._pause, self._resume)
        self.got_bytes = False
        self.reusable = False
        self.idle_since = 0.0
        self.used_before = False

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self.reusable = False
        self._writable.set()
        if self._head_ready is not None and not self._head_ready.done():
            self._head_ready.set_exception(UpstreamError("the upstream closed the connection"))
        self._end_body_at_close()

    def data_received(self, data: bytes) -> None:
        self.got_bytes = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._head = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._interim = status < 200  # noqa: PLR2004 - 1xx: another head follows
        if self._interim or self._head_ready is None or self._head_ready.done():
            return
        self.status = status
        self.headers = Headers(self._head)
        self.reusable = self._parser.should_keep_alive()
        if self._method == "HEAD":
            # the parser would wait for a body of the announced length, which never comes
            self.reusable = False
            self.body.feed_end()
        self._head_ready.set_result(None)

    def on_body(self, body: bytes) -> None:
        self.body.feed(body)

    def on_message_complete(self) -> None:
        if not self._interim:
            self.body.feed_end()

    # --- for the proxy

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, method: str) -> None:
        """Forget the last answer and expect one for `method`."""
        self._method = method
        self._head_ready = asyncio.get_running_loop().create_future()
        self.body = BodyStream(self._pause, self._resume)
        self.got_bytes = False
        self.reusable = False

    async def send(self, data: bytes) -> None:
        """Raises UpstreamError."""
        if self._transport is None:
            raise UpstreamError("the upstream closed the connection")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def wait_for_head(self, timeout_seconds: float) -> None:
        """Raises UpstreamError, UpstreamTimeoutError."""
        assert self._head_ready is not None  # noqa: S101 - begin comes first
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._head_ready
        except TimeoutError:
            raise UpstreamTimeoutError(f"no answer within {timeout_seconds} s") from None

    async def read_body(self, timeout_seconds: float) -> bytes:
        """Raises BodyBrokenError, UpstreamTimeoutError."""
        if self.body.has_data:
            return await self.body.read()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self.body.read()
        except TimeoutError:
            raise UpstreamTimeoutError(f"nothing for {timeout_seconds} s") from None

    def abort(self) -> None:
        """Drop the connection; whoever waits for it gets an error."""
        self.reusable = False
        if self._head_ready is not None and not self._head_ready.done():
            self._head_ready.set_exception(UpstreamError("the upstream connection was dropped"))
        self.body.feed_broken()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def forget_failure(self) -> None:
        """Nobody will wait for the head any more: its error is no news."""
        if self._head_ready is not None and self._head_ready.done() and not self._head_ready.cancelled():
            self._head_ready.exception()

    # --- inside

    def _end_body_at_close(self) -> None:
        framed = "content-length" in self.headers or "chunked" in self.headers.listed("transfer-encoding")
        if self.status and not framed:
            self.body.feed_end()
        else:
            self.body.feed_broken()

    def _pause(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()


class UpstreamPool:
    """Idle connections by target."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], deque[UpstreamConnection]] = {}

    async def take(self, host: str, port: int, *, connect_timeout_seconds: float) -> UpstreamConnection:
        """An idle connection that is still open, or a new one. Raises UpstreamError of the connecting kind."""
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if connection.is_open and time.monotonic() - connection.idle_since < IDLE_SECONDS:
                connection.used_before = True
                return connection
            connection.abort()
        return await self.connect(host, port, connect_timeout_seconds=connect_timeout_seconds)

    async def connect(self, host: str, port: int, *, connect_timeout_seconds: float) -> UpstreamConnection:
        """A new connection. Raises UpstreamConnectError or UpstreamTimeoutError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(connect_timeout_seconds):
                _, connection = await loop.create_connection(UpstreamConnection, host, port)
        except TimeoutError:
            raise UpstreamTimeoutError(f"no connection to {host}:{port} within its time") from None
        except OSError as error:
            raise UpstreamConnectError(f"no connection to {host}:{port}: {error}") from error
        return connection

    def give_back(self, host: str, port: int, connection: UpstreamConnection) -> None:
        """Keep the connection for the next request if both sides left it in order; else drop it."""
        idle = self._idle.setdefault((host, port), deque())
        if connection.reusable and connection.body.complete and len(idle) < MAX_IDLE_PER_TARGET:
            connection.idle_since = time.monotonic()
            idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()
