"""One connection to Redis: encodes commands, sends a batch, reads as many replies.

A socket of gevent's, so that waiting never stops the process, whether or not anything is monkey-patched.
"""

import ssl
import time
from typing import Any

import hiredis
from gevent import socket as gsocket
from gevent import ssl as gssl

from kong_plugins.parts.redis_endpoint import RedisEndpoint

READ_BYTES = 65_536
CLIENT_NAME = "km-gateway"
WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RedisLinkError(Exception):
    """Family of what goes wrong between a worker and Redis."""


class RedisAwayError(RedisLinkError):
    """Redis cannot be reached. The commands were never sent."""


class ReplyLostError(RedisLinkError):
    """The commands were sent and no answer came: they may have run, so they are never sent again."""


class RedisRefusedError(RedisLinkError):
    """Redis answered with an error, and did not do what it was asked."""


def encode_command(*parts: str | bytes | int) -> bytes:
    """Return the command as Redis wants it on the wire."""
    out = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)


class RedisConnection:
    """Connected, authenticated and in its database once made.

    `setup` holds further commands to run first. Every wait ends after `reply_timeout_seconds`.
    """

    def __init__(
        self,
        endpoint: RedisEndpoint,
        *,
        connect_timeout_seconds: float,
        reply_timeout_seconds: float,
        setup: tuple[bytes, ...] = (),
    ) -> None:
        """Raises RedisAwayError."""
        self._reader = hiredis.Reader()
        self._tls = endpoint.tls
        try:
            self._socket = _connect(endpoint, connect_timeout_seconds)
        except OSError as error:
            raise RedisAwayError(f"cannot connect to Redis: {error}") from error
        self._reply_timeout_seconds = reply_timeout_seconds
        self._socket.settimeout(reply_timeout_seconds)
        try:
            self._introduce(endpoint, setup)
        except BaseException:
            self.close()
            raise

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send commands and return their `count` replies; error replies are hiredis.ReplyError values.

        Raises ReplyLostError. The connection is of no use after that.
        """
        replies: list[Any] = []
        try:
            self._socket.sendall(data)
            deadline = time.monotonic() + self._reply_timeout_seconds
            self._read_into(replies, count)
            while len(replies) < count:
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out")
                self._receive()
                self._read_into(replies, count)
        except (OSError, hiredis.ProtocolError) as error:
            raise ReplyLostError(f"no answer from Redis: {error}") from error
        return replies

    def next_reply(self) -> Any:
        """Return the next thing Redis says on its own, or None when it is silent for the reply timeout.

        Raises ReplyLostError.
        """
        try:
            reply = self._reader.gets()
            while reply is False:
                self._receive()
                reply = self._reader.gets()
        except TimeoutError:
            return None
        except (OSError, hiredis.ProtocolError) as error:
            raise ReplyLostError(f"lost Redis: {error}") from error
        return reply

    def send(self, data: bytes) -> None:
        """Raises ReplyLostError."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ReplyLostError(f"lost Redis: {error}") from error

    def stop_waiting(self) -> int:
        """From now on only `send_some` and `receive_some` may be used; returns the descriptor to watch."""
        self._socket.settimeout(0.0)
        descriptor: int = self._socket.fileno()
        return descriptor

    def send_some(self, data: bytes) -> int:
        """Send what can be sent without waiting and return how many bytes that were. Raises ReplyLostError."""
        try:
            sent: int = self._socket.send(data)
        except WOULD_WAIT:
            return 0
        except OSError as error:
            raise ReplyLostError(f"lost Redis: {error}") from error
        return sent

    def receive_some(self) -> list[Any]:
        """Return the replies that have come, without waiting. Raises ReplyLostError."""
        replies: list[Any] = []
        try:
            self._receive()
            while self._tls:  # what TLS has decrypted already makes no descriptor readable
                self._receive()
        except WOULD_WAIT:
            pass
        except OSError as error:
            raise ReplyLostError(f"lost Redis: {error}") from error
        try:
            while (reply := self._reader.gets()) is not False:
                replies.append(reply)
        except hiredis.ProtocolError as error:
            raise ReplyLostError(f"Redis talks nonsense: {error}") from error
        return replies

    def close(self) -> None:
        self._socket.close()

    def _introduce(self, endpoint: RedisEndpoint, setup: tuple[bytes, ...]) -> None:
        commands = []
        if endpoint.password:
            user = (endpoint.username,) if endpoint.username else ()
            commands.append(encode_command("AUTH", *user, endpoint.password))
        if endpoint.database:
            commands.append(encode_command("SELECT", endpoint.database))
        commands += [encode_command("CLIENT", "SETNAME", CLIENT_NAME), *setup]
        try:
            replies = self.exchange(b"".join(commands), len(commands))
        except ReplyLostError as error:
            raise RedisAwayError(str(error)) from error
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise RedisAwayError(f"Redis refuses us: {reply}") from reply

    def _receive(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("Redis closed the connection")
        self._reader.feed(data)

    def _read_into(self, replies: list[Any], count: int) -> None:
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is False:
                return
            replies.append(reply)


def _connect(endpoint: RedisEndpoint, timeout_seconds: float) -> Any:
    if endpoint.path:
        sock = gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM)
        sock.settimeout(timeout_seconds)
        try:
            sock.connect(endpoint.path)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = gsocket.create_connection((endpoint.host, endpoint.port), timeout=timeout_seconds)
    sock.setsockopt(gsocket.IPPROTO_TCP, gsocket.TCP_NODELAY, 1)
    if not endpoint.tls:
        return sock
    try:
        return _tls_context(endpoint.ca_file).wrap_socket(sock, server_hostname=endpoint.host)
    except BaseException:
        sock.close()
        raise


def _tls_context(ca_file: str) -> Any:
    """Return a context of gevent's own: sockets of the standard library's would stop the process at each wait."""
    context = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    return context
