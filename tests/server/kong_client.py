"""A synchronous client that talks to a plugin server the way Kong 3.9's ProtoBuf:1 client does."""

import itertools
import json
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kong_plugins.server import messages
from kong_plugins.server.methods import ARGUMENT_AND_RESULT


class ClosedError(Exception):
    """The server closed the connection where Kong expected a frame."""


@dataclass
class Outcome:
    """What one event did: its PDK calls in order, and the answer if `kong.response.exit` was called."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    exit: dict[str, Any] | None = None
    restarts: int = 0

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def argument(self, method: str) -> Any:
        return next(argument for name, argument in self.calls if name == method)

    @property
    def body(self) -> Any:
        return json.loads(self.exit["body"])


class KongClient:
    """Kong's nginx worker: a pool of connections, one instance for each plugin configuration."""

    def __init__(self, path: str, *, timeout: float = 30.0) -> None:
        self.path = str(path)
        self.timeout = timeout
        self.pool: list[socket.socket] = []
        self.opened: list[socket.socket] = []
        self.sequence = itertools.count(2)
        self.instances: dict[str, int] = {}

    # transport

    def connect(self) -> socket.socket:
        while self.pool:
            connection = self.pool.pop()
            poller = select.poll()  # select.select refuses descriptors above 1,023
            poller.register(connection, select.POLLIN)
            if not poller.poll(0):
                return connection
            connection.close()  # nginx drops pooled connections that the other side has closed
        return self.connect_anew()

    def connect_anew(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.opened.append(connection)
        connection.settimeout(self.timeout)
        connection.connect(self.path)
        return connection

    def close(self) -> None:
        for connection in self.opened:
            connection.close()
        self.pool.clear()

    @staticmethod
    def send(connection: socket.socket, payload: bytes) -> None:
        connection.sendall(struct.pack("<I", len(payload)))  # two writes, as Kong does it
        if payload:
            connection.sendall(payload)

    @staticmethod
    def read(connection: socket.socket) -> bytes:
        head = _read_exactly(connection, 4)
        return _read_exactly(connection, struct.unpack("<I", head)[0])

    # calls

    def call(
        self, command: str, values: dict[str, Any], connection: socket.socket | None = None
    ) -> dict[str, Any]:
        """One call without PDK calls in it; raises ClosedError where the server refuses."""
        connection = connection or self.connect()
        sequence = next(self.sequence)
        try:
            self.send(connection, messages.encode("RpcCall", {command: values, "sequence": sequence}))
            answer = messages.decode("RpcReturn", self.read(connection))
        except BaseException:
            connection.close()
            raise
        assert answer["sequence"] == sequence
        self.pool.append(connection)
        return answer

    def start_instance(self, plugin: str, config: dict[str, Any], connection: socket.socket | None = None) -> int:
        raw = json.dumps(config).encode()
        answer = self.call("cmd_start_instance", {"name": plugin, "config": raw}, connection)
        assert answer["instance_status"]["name"] == plugin
        return answer["instance_status"]["instance_id"]

    def close_instance(self, instance_id: int) -> dict[str, Any]:
        return self.call("cmd_close_instance", {"instance_id": instance_id})

    def handle_event(
        self,
        instance_id: int,
        phase: str,
        answer: Callable[[str, Any], Any] | None = None,
        connection: socket.socket | None = None,
    ) -> Outcome:
        """Run one event. `answer(method, argument)` returns what Kong's PDK would, None for nil.

        Raises ClosedError where the server closes the connection before the event has ended.
        """
        connection = connection or self.connect()
        sequence = next(self.sequence)
        outcome = Outcome()
        try:
            event = {"instance_id": instance_id, "event_name": phase}
            self.send(connection, messages.encode("RpcCall", {"cmd_handle_event": event, "sequence": sequence}))
            while name := self.read(connection).decode():
                kind, result = ARGUMENT_AND_RESULT[name]
                argument = _unwrap(kind, messages.decode_whole(kind, self.read(connection)))
                outcome.calls.append((name, argument))
                if name == "kong.response.exit":
                    outcome.exit = argument
                    connection.close()
                    return outcome
                value = answer(name, argument) if answer is not None else None
                self.send(connection, _wrap(result, value))
            final = messages.decode("RpcReturn", self.read(connection))
        except BaseException:
            connection.close()
            raise
        assert final == {"sequence": sequence}
        self.pool.append(connection)
        return outcome

    def request(self, plugin: str, config: dict[str, Any], phase: str, answer: Any = None) -> Outcome:
        """What Kong does at a request: start the instance once, and anew where the connection is closed."""
        key = plugin + json.dumps(config, sort_keys=True)
        for restarts in range(5):
            if key not in self.instances:
                self.instances[key] = self.start_instance(plugin, config)
            try:
                outcome = self.handle_event(self.instances[key], phase, answer)
            except ClosedError:
                del self.instances[key]
                continue
            outcome.restarts = restarts
            return outcome
        raise ClosedError("the server closes at every attempt")


def pdk(headers: dict[str, Any] | None = None, **values: Any) -> Callable[[str, Any], Any]:
    """An answer function: the given headers, and other values by method name with `_` for the last dot."""

    def answer(method: str, argument: Any) -> Any:
        if method == "kong.request.get_headers":
            return headers or {}
        if method == "kong.request.get_header":
            return (headers or {}).get(argument.lower())
        return values.get(method.removeprefix("kong.").replace(".", "_"))

    return answer


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except ConnectionResetError as error:
            raise ClosedError("reset") from error
        if not more:
            raise ClosedError("closed")
        data += more
    return data


def _unwrap(kind: str, value: Any) -> Any:
    return value.get("v") if kind in ("String", "Int", "Bool", "Number", "ByteString") else value


def _wrap(kind: str, value: Any) -> bytes:
    if value is None:
        return b"\x08\x01" if kind == "Value" else b""
    if kind in ("String", "Int", "Bool", "Number", "ByteString"):
        value = {"v": value} if value else {}
    return messages.encode_whole(kind, value)
