"""The HTTP/1.1 server side: requests in, streamed answers out, and notice of callers who hang up."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from devstack.gateway.headers import Headers
from devstack.gateway.http_answer import REASONS, Answer, CallerGoneError, Request

MAX_HEAD_BYTES = 64 * 1024
MAX_PIPELINED = 16
IDLE_SECONDS = 75.0


Handler = Callable[[Request, Answer], Awaitable[None]]


class ServerConnection(asyncio.Protocol):
    """One client connection: its requests are handled one after the other."""

    def __init__(self, handler: Handler, connections: "set[ServerConnection]") -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._parsing: Request | None = None
        self._head: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._in_head = True
        self._unfinished_head_bytes = 0
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._descriptor = -1
        self.sent_bytes = 0
        self._idle: asyncio.TimerHandle | None = None
        self._closing = False
        self.peer: tuple[str, int] = ("", 0)
        self.server_port = 0
        self.task: asyncio.Task[None] | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer = transport.get_extra_info("peername")[:2]
        self.server_port = transport.get_extra_info("sockname")[1]
        self._descriptor = transport.get_extra_info("socket").fileno()
        # `send` waits until nothing is left in the transport
        self._transport.set_write_buffer_limits(high=0)
        self._connections.add(self)
        self._arm_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._connections.discard(self)
        self._transport = None
        self._disarm_idle_timer()
        self._writable.set()
        self._caller_gone()

    def eof_received(self) -> bool:
        # as nginx: a caller who stops sending is taken to have left, even if it still could read
        self._caller_gone()
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._disarm_idle_timer()
        self._unfinished_head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused by the handler, which sees `upgrade`
        except httptools.HttpParserError:
            self._refuse(400)
        if self._unfinished_head_bytes > MAX_HEAD_BYTES and self._in_head:
            self._refuse(431)

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._parsing = Request(self)
        self._head, self._url, self._in_head = [], b"", True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._request_being_parsed().head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head.append((name, value))
        self._request_being_parsed().head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self._in_head, self._unfinished_head_bytes = False, 0
        request = self._request_being_parsed()
        request.method = self._parser.get_method().decode("latin-1")
        request.target = self._url.decode("latin-1")
        request.http_version = self._parser.get_http_version()
        request.headers = Headers(self._head)
        request.keep_alive = self._parser.should_keep_alive()
        request.head_bytes += len(request.method) + len(" HTTP/1.1\r\n") + 1 + 2
        request.upgrade = "upgrade" in request.headers
        request.wants_continue = (request.headers.get("expect") or "").lower() == "100-continue"
        if request.wants_continue:
            request.body.on_first_read = self._send_continue
        self._waiting.append(request)
        self._start_next()

    def on_body(self, body: bytes) -> None:
        self._request_being_parsed().body.feed(body)

    def on_message_complete(self) -> None:
        self._request_being_parsed().body.feed_end()
        if len(self._waiting) > MAX_PIPELINED:
            self.pause_reading()

    # --- for Request and Answer

    def pause_reading(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()

    async def send(self, data: bytes) -> None:
        """Return when the kernel has taken everything; `sent_bytes` tells what it took in any case.

        Writes past the transport, which would not tell how much of a piece had left when a caller hung up.

        Raises:
            CallerGoneError: the caller hung up.
        """
        left = memoryview(data)
        while left:
            if self._transport is None or (self._current is not None and self._current.gone):
                raise CallerGoneError
            try:
                taken = os.write(self._descriptor, left)
            except BlockingIOError:
                taken = await self._send_when_read(left[:1])
            except OSError as error:
                self._caller_gone()
                self.abort()
                raise CallerGoneError from error
            self.sent_bytes += taken
            left = left[taken:]

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close_when_idle(self) -> None:
        """Take no further request; the one being handled is finished first."""
        self._closing = True
        if self._current is None and self._transport is not None:
            self._transport.close()

    # --- inside

    async def _send_when_read(self, first: memoryview) -> int:
        """The kernel takes no more: leave one byte to the transport, which sends it when the caller reads on."""
        assert self._transport is not None  # noqa: S101 - checked by `send`
        self._transport.write(bytes(first))
        await self._writable.wait()
        if self._transport is None:
            raise CallerGoneError
        return len(first)

    def _request_being_parsed(self) -> Request:
        assert self._parsing is not None  # noqa: S101 - the parser announces every message first
        return self._parsing

    def _refuse(self, status: int) -> None:
        if self._transport is None:
            return
        if self._current is None:
            reason = REASONS[status].encode()
            head = b"HTTP/1.1 %d %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (status, reason)
            self._transport.write(head)
        self._transport.close()

    def _send_continue(self) -> None:
        if self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _start_next(self) -> None:
        if self._current is None and self._waiting and self._transport is not None and not self._closing:
            self._current = self._waiting.popleft()
            self.task = asyncio.get_running_loop().create_task(self._handle(self._current))

    async def _handle(self, request: Request) -> None:
        answer = Answer(self, request)
        with contextlib.suppress(CallerGoneError):
            await self._handler(request, answer)
        if self._transport is None or request.gone:
            return
        if not answer.keep_alive or self._closing or not await _drained(request):
            self._transport.close()
            return
        self._current = None
        self.resume_reading()
        self._start_next()
        if self._current is None:
            self._arm_idle_timer()

    def _caller_gone(self) -> None:
        self._waiting.clear()
        if self._parsing is not None:
            self._parsing.body.feed_broken()
        request = self._current
        if request is not None and not request.gone:
            request.gone = True
            if request.on_gone is not None:
                request.on_gone()

    def _arm_idle_timer(self) -> None:
        self._disarm_idle_timer()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_idle)

    def _disarm_idle_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close_idle(self) -> None:
        if self._current is None and self._transport is not None:
            self._transport.close()


async def _drained(request: Request) -> bool:
    """Read what is left of the request's body, so that the connection can be used again."""
    if request.wants_continue and not request.body.was_read:
        # the caller never got its 100 and may or may not send the body: nobody can tell what comes next
        return request.body.complete
    return await request.body.discard()
