"""A few lines of HTTP for the master: health and metrics, without threads, which must not be around at a fork."""

import logging
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kong_plugins.server import logs

LONGEST_REQUEST: Final = 8192
SECONDS_PER_REQUEST: Final = 5.0
RETRY_SECONDS: Final = 1.0
MOST_CLIENTS: Final = 50


@dataclass(frozen=True, slots=True)
class Page:
    status: str
    content_type: str
    body: bytes


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    since: float
    received: bytes = b""
    to_send: bytes = b""


class StatusServer:
    """Answers GETs of the pages it is given; anything else is a 404."""

    def __init__(
        self, *, selector: selectors.BaseSelector, host: str, port: int, pages: dict[str, Callable[[], Page]]
    ) -> None:
        self._selector = selector
        self._address = (host, port)
        self._pages = pages
        self._listener: socket.socket | None = None
        self._clients: dict[int, _Client] = {}
        self._retry_at = 0.0
        self._limiter = logs.Limiter(lines=1, seconds=60.0)

    def tick(self, now: float) -> None:
        """Open the port, again and again where another process still has it; drop who is too slow."""
        if self._listener is None and now >= self._retry_at:
            self._open(now)
        for client in list(self._clients.values()):
            if now - client.since > SECONDS_PER_REQUEST:
                self._drop(client)

    def close(self) -> None:
        """Close every socket."""
        for client in list(self._clients.values()):
            self._drop(client)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def forget(self) -> None:
        """In a forked worker: close its copies of the sockets; the selector is the master's."""
        for client in self._clients.values():
            client.connection.close()
        if self._listener is not None:
            self._listener.close()

    def _open(self, now: float) -> None:
        try:
            listener = socket.create_server(self._address, backlog=16)
        except OSError as error:
            self._retry_at = now + RETRY_SECONDS
            self._limiter.log(logging.ERROR, "open", "the metrics port cannot be opened yet", error=error)
            return
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._on_connection)
        logs.log(logging.INFO, "metrics port is open", host=self._address[0], port=listener.getsockname()[1])

    def _on_connection(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection, time.monotonic())
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_readable(client))

    def _on_readable(self, client: _Client) -> None:
        try:
            data = client.connection.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        if not data or len(client.received) > LONGEST_REQUEST:
            self._drop(client)
        elif b"\r\n\r\n" in client.received:
            client.to_send = self._answer(client.received)
            self._selector.modify(client.connection, selectors.EVENT_WRITE, lambda: self._on_writable(client))

    def _on_writable(self, client: _Client) -> None:
        try:
            sent = client.connection.send(client.to_send)
        except BlockingIOError:
            return
        except OSError:
            sent = len(client.to_send)
        client.to_send = client.to_send[sent:]
        if not client.to_send:
            self._drop(client)

    def _answer(self, request: bytes) -> bytes:
        method, path = (*request.split(b"\r\n", 1)[0].split(b" "), b"", b"")[:2]
        make = self._pages.get(path.split(b"?")[0].decode("latin-1")) if method in (b"GET", b"HEAD") else None
        page = make() if make is not None else Page("404 Not Found", "text/plain", b"not found\n")
        head = (
            f"HTTP/1.1 {page.status}\r\nContent-Type: {page.content_type}\r\nContent-Length: {len(page.body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == b"HEAD" else page.body)

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        self._selector.unregister(client.connection)
        client.connection.close()
