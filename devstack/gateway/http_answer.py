"""One request as it came, and its answer as it leaves."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from devstack.gateway.body import BodyStream
from devstack.gateway.headers import Headers

_NO_BODY_STATUSES = frozenset({204, 304})
# what is held back until the log is written; more than this has left before, so that the log knows if it did not
_HELD_BYTES = 16 * 1024
REASONS = {status.value: status.phrase for status in HTTPStatus}


class Connection(Protocol):
    """What a request and its answer need of the connection they came over."""

    peer: tuple[str, int]
    server_port: int
    sent_bytes: int

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    async def send(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


class CallerGoneError(Exception):
    """The caller closed the connection before the answer was complete."""


class Request:
    """One request as it came. `on_gone` is called once when the caller hangs up before the answer is complete."""

    def __init__(self, connection: Connection) -> None:
        self.received_at = time.time()
        self.method = ""
        self.target = ""
        self.http_version = "1.1"
        self.headers = Headers()
        self.body = BodyStream(connection.pause_reading, connection.resume_reading)
        self.head_bytes = 0
        self.keep_alive = True
        self.wants_continue = False
        self.upgrade = False
        self.client_ip, self.client_port = connection.peer
        self.server_port = connection.server_port
        self.gone = False
        self.on_gone: Callable[[], None] | None = None

    @property
    def request_bytes(self) -> int:
        """Head and body received so far, as nginx counts $request_length."""
        return self.head_bytes + self.body.received


class Answer:
    """Writes one answer. The last piece is held until `finish`, which does something just before it leaves."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._held = b""
        self._remaining: int | None = None
        self._chunked = False
        self._sent_before = connection.sent_bytes
        self.keep_alive = request.keep_alive
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def started(self) -> bool:
        return self.status != 0

    @property
    def sent_bytes(self) -> int:
        """Bytes of this answer that the kernel has taken, as nginx counts $bytes_sent: no caller got more."""
        return self._connection.sent_bytes - self._sent_before

    def start(self, status: int, headers: list[tuple[bytes, bytes]], *, content_length: int | None) -> None:
        """Prepare the head. `content_length` None: as long as it takes (chunked, or until close for HTTP/1.0).

        `headers` must not hold anything about framing or the connection; that is added here.
        """
        self.status = status
        bodiless = self._request.method == "HEAD" or status in _NO_BODY_STATUSES
        framing: list[tuple[bytes, bytes]] = []
        if content_length is not None and status not in _NO_BODY_STATUSES:
            framing.append((b"Content-Length", b"%d" % content_length))
        if bodiless:
            self._remaining = 0
        elif content_length is not None:
            self._remaining = content_length
        elif self._request.http_version == "1.1":
            self._chunked = True
            framing.append((b"Transfer-Encoding", b"chunked"))
        else:
            self.keep_alive = False
        framing.append((b"Connection", b"keep-alive" if self.keep_alive else b"close"))
        self.headers = [*headers, *framing]
        lines = [b"%b: %b\r\n" % header for header in self.headers]
        reason = REASONS.get(status, "Unknown").encode()
        self._held = b"".join([b"HTTP/1.1 %d %b\r\n" % (status, reason), *lines, b"\r\n"])

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, except where it is the last one that Content-Length allows."""
        if self._remaining is not None:
            data = data[: self._remaining]
            self._remaining -= len(data)
            self._held += data
            if self._remaining == 0:
                return
        elif self._chunked:
            self._held += b"%x\r\n%b\r\n" % (len(data), data)
        else:
            self._held += data
        await self.flush()

    async def flush(self) -> None:
        """Send what is held, if something must still follow it; waits while the caller reads slowly.

        Raises CallerGoneError.
        """
        if self._remaining == 0:
            return
        held, self._held = self._held, b""
        if held:
            await self._connection.send(held)

    async def finish(self, before_last: Callable[[int], None]) -> None:
        """Send the rest. `before_last` gets the size of the whole answer in bytes, just before its end leaves.

        Raises CallerGoneError; `before_last` has run then, too, unless a caller who left kept it from the end.
        """
        if self._chunked:
            self._held += b"0\r\n\r\n"
        elif self._remaining:
            # the upstream gave less than it promised: the caller must not take it for a whole answer
            self.keep_alive = False
        held, self._held = self._held, b""
        if len(held) > _HELD_BYTES:
            await self._connection.send(held[:-_HELD_BYTES])
            held = held[-_HELD_BYTES:]
        before_last(self.sent_bytes + len(held))
        if held:
            await self._connection.send(held)

    def abort(self) -> None:
        """Close the connection without a proper end, so that the caller sees a broken answer."""
        self._held = b""
        self._connection.abort()
