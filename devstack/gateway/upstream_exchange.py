"""Sending one request to its upstream and reading the answer, with Kong's retries."""

from typing import Any

from devstack.gateway import answers
from devstack.gateway.body import BodyBrokenError
from devstack.gateway.exchange import Exchange, now_ms
from devstack.gateway.headers import Headers
from devstack.gateway.http_client import (
    UpstreamConnectError,
    UpstreamConnection,
    UpstreamError,
    UpstreamPool,
    UpstreamTimeoutError,
)

# repeating these could do something twice
_NOT_IDEMPOTENT = frozenset({"POST", "LOCK", "PATCH"})


class UpstreamFailedError(Exception):
    """The upstream gave no (whole) answer; `status` is what the caller gets: 502 or 504."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class UpstreamExchange:
    """One request to the upstream named in the exchange."""

    def __init__(self, pool: UpstreamPool, exchange: Exchange) -> None:
        assert exchange.upstream is not None  # noqa: S101 - prepared before the access phase
        assert exchange.match is not None  # noqa: S101 - the same
        self._pool = pool
        self._exchange = exchange
        self._call = exchange.upstream
        self._service = exchange.match.route.service
        self._prefix = exchange.match.prefix
        self._connection: UpstreamConnection | None = None
        self._aborted = False
        self._head_at_ms = 0
        self._host, self._port = self._call.host, self._call.port
        self.status = 0
        self.headers = Headers()
        self.content_length: int | None = None

    async def open(self) -> None:
        """Send the request and wait for the head of the answer. Raises UpstreamFailedError."""
        attempts = self._service.retries + 1
        for attempt in range(1, attempts + 1):
            started_ms = now_ms()
            self._take_turn()
            self._note_try(started_ms)
            try:
                await self._open_once()
            except UpstreamError as error:
                status = 504 if isinstance(error, UpstreamTimeoutError) else 502
                self._call.statuses.append(str(status))
                self._exchange.waiting_ms = now_ms() - started_ms
                if self._aborted or attempt == attempts or not self._may_repeat(error):
                    raise UpstreamFailedError(status, str(error)) from error
                self._call.tries[-1] |= {"state": "failed", "code": status}
            else:
                self._call.statuses.append(str(self.status))
                self._head_at_ms = now_ms()
                self._exchange.waiting_ms = self._head_at_ms - started_ms
                return

    @property
    def has_data(self) -> bool:
        return self._connection is not None and self._connection.body.has_data

    async def read(self) -> bytes:
        """The next piece of the answer's body, b"" at its end. Raises UpstreamFailedError."""
        assert self._connection is not None  # noqa: S101 - open comes first
        try:
            piece = await self._connection.read_body(self._service.read_timeout_ms / 1000)
        except (BodyBrokenError, UpstreamTimeoutError) as error:
            raise UpstreamFailedError(502, "the answer ended before it was complete") from error
        self._exchange.receive_ms = now_ms() - self._head_at_ms
        return piece

    def close(self) -> None:
        """Keep the connection if its answer was read whole, else drop it."""
        if self._connection is not None:
            self._pool.give_back(self._host, self._port, self._connection)
            self._connection = None

    def abort(self) -> None:
        """The caller left: drop the upstream's connection and end every wait for it."""
        self._aborted = True
        if self._connection is not None:
            self._connection.abort()

    # --- inside

    def _take_turn(self) -> None:
        """Of an upstream's targets each try takes the next."""
        target = self._call.balanced.next_target() if self._call.balanced else None
        if target is not None:
            self._host, self._port = target.host, target.port

    async def _open_once(self) -> None:
        timeout = self._service.connect_timeout_ms / 1000
        connection = await self._pool.take(self._host, self._port, connect_timeout_seconds=timeout)
        self._connection = connection
        connection.begin(self._call.method)
        try:
            await self._send(connection)
            await connection.wait_for_head(self._service.read_timeout_ms / 1000)
        except UpstreamError:
            connection.abort()
            connection.forget_failure()
            raise
        self.status = connection.status
        self.headers = connection.headers
        length = connection.headers.get("content-length")
        self.content_length = int(length) if length is not None and length.isdigit() else None

    async def _send(self, connection: UpstreamConnection) -> None:
        if self._aborted:
            raise UpstreamError("the caller left")
        headers = answers.upstream_request_headers(self._exchange, host=self._host_header(), prefix=self._prefix)
        given = self._call.body
        length = self._exchange.headers.get("content-length")
        chunked = False
        if given is not None:
            headers.put("Content-Length", str(len(given)))
        elif length is not None:
            headers.put("Content-Length", length)
        elif "chunked" in self._exchange.headers.listed("transfer-encoding"):
            headers.put("Transfer-Encoding", "chunked")
            chunked = True
        await connection.send(self._head(headers))
        if given is not None:
            await connection.send(given)
        elif chunked or length is not None:
            await self._send_body(connection, chunked=chunked)

    async def _send_body(self, connection: UpstreamConnection, *, chunked: bool) -> None:
        try:
            while piece := await self._exchange.request.body.read():
                await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        except BodyBrokenError as error:
            raise UpstreamError("the caller left in the middle of its request") from error
        if chunked:
            await connection.send(b"0\r\n\r\n")

    def _head(self, headers: Headers) -> bytes:
        query = "" if self._call.query is None else f"?{self._call.query}"
        line = f"{self._call.method} {self._call.path}{query} HTTP/1.1\r\n".encode("latin-1", "replace")
        return b"".join([line, *(b"%b: %b\r\n" % header for header in answers.raw(headers)), b"\r\n"])

    def _host_header(self) -> str:
        if self._call.host_header:
            return self._call.host_header
        host = (self._call.balanced.host_header if self._call.balanced else None) or self._host
        return host if self._port == 80 else f"{host}:{self._port}"  # noqa: PLR2004

    def _may_repeat(self, error: UpstreamError) -> bool:
        if isinstance(error, UpstreamConnectError):
            return True
        if self._connection is not None and self._connection.got_bytes:
            return False
        sent_body = self._exchange.request.body.received > 0 and self._call.body is None
        return self._call.method not in _NOT_IDEMPOTENT and not sent_body

    def _note_try(self, started_ms: int) -> None:
        one: dict[str, Any] = {
            "balancer_start": started_ms,
            "balancer_start_ns": started_ms * 1_000_000,
            "balancer_latency": 0,
            "balancer_latency_ns": 0,
            "ip": self._host,
            "port": self._port,
        }
        self._call.tries.append(one)
