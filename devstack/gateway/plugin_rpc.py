"""Kong's side of the plugin protocol `ProtoBuf:1`: frames on a unix socket, one connection held per event."""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from google.protobuf.message import DecodeError

from devstack.gateway import protocol_messages as messages
from devstack.gateway.pdk import METHODS, ExitRequestedError, PdkCall, PdkError, call_method

DEFAULT_TIMEOUT_SECONDS = 60.0
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_IDLE = 512

logger = logging.getLogger("gateway.plugin_rpc")


class PluginServerDownError(Exception):
    """No connection to the plugin server's socket."""


class PluginServerClosedError(Exception):
    """The plugin server closed the connection before it had answered."""


class PluginServerTimeoutError(Exception):
    """The plugin server sent nothing for as long as Kong would wait."""


class PluginProtocolError(Exception):
    """The plugin server sent what Kong does not take, or asked for what Kong refuses."""


class RpcConnection(asyncio.Protocol):
    """Frames in, frames out: a uint32 little-endian length, then that many bytes."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._wake()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:  # noqa: PLR2004 - the length itself
            length = int.from_bytes(buffer[start : start + 4], "little")
            if length > MAX_FRAME_BYTES:
                self.close()
                return
            end = start + 4 + length
            if len(buffer) < end:
                break
            self._frames.append(bytes(buffer[start + 4 : end]))
            start = end
        if start:
            del buffer[:start]
            self._wake()

    @property
    def is_idle(self) -> bool:
        """Open, with nothing left over from the last call."""
        return self._transport is not None and not self._frames and not self._buffer

    def send(self, frame: bytes) -> None:
        if self._transport is None:
            raise PluginServerClosedError("closed")
        self._transport.write(len(frame).to_bytes(4, "little") + frame)

    async def read(self, timeout_seconds: float) -> bytes:
        """The next frame. Raises PluginServerClosedError or PluginServerTimeoutError."""
        if not self._frames:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._wait()
            except TimeoutError:
                raise PluginServerTimeoutError("timeout") from None
        return self._frames.popleft()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self._wake()

    async def _wait(self) -> None:
        while not self._frames:
            if self._transport is None:
                raise PluginServerClosedError("closed")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None


class PluginServerClient:
    """Calls to the server at one socket, over a pool of connections."""

    def __init__(self, socket: str, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._socket = socket
        self._timeout_seconds = timeout_seconds
        self._idle: deque[RpcConnection] = deque()
        self._sequence = itertools.count(2)

    async def start_instance(self, name: str, config: bytes) -> int:
        """Returns the instance id. `config` is JSON."""
        reply = await self._call(cmd_start_instance=messages.new("CmdStartInstance", name=name, config=config))
        return int(reply.instance_status.instance_id)

    async def close_instance(self, instance_id: int) -> None:
        await self._call(cmd_close_instance=messages.new("CmdCloseInstance", instance_id=instance_id))

    async def handle_event(self, instance_id: int, phase: str, call: PdkCall) -> None:
        """Run one phase, answering its PDK calls against `call`.

        Raises ExitRequestedError when the plugin answers the request itself, PdkError when it asks for something
        Kong would raise at, and this module's errors. In all of these the connection is dropped, as Kong does.
        """
        event = messages.new("CmdHandleEvent", instance_id=instance_id, event_name=phase)
        await self._call(pdk=call, cmd_handle_event=event)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _call(self, *, pdk: PdkCall | None = None, **command: Any) -> Any:
        connection = await self._connection()
        finished = False
        try:
            sequence = next(self._sequence)
            connection.send(messages.new("RpcCall", sequence=sequence, **command).SerializeToString())
            if pdk is not None:
                await self._answer_pdk_calls(connection, pdk)
            reply = messages.parse("RpcReturn", await connection.read(self._timeout_seconds))
            if reply.sequence != sequence:
                raise PluginProtocolError(f"answer {reply.sequence} to call {sequence}")
            finished = True
        except (DecodeError, UnicodeDecodeError) as error:
            raise PluginProtocolError(f"a message does not decode: {error}") from error
        else:
            return reply
        finally:
            self._give_back(connection, usable=finished)

    async def _answer_pdk_calls(self, connection: RpcConnection, pdk: PdkCall) -> None:
        while name := (await connection.read(self._timeout_seconds)).decode():
            argument = await connection.read(self._timeout_seconds)
            if name not in METHODS:
                raise PluginProtocolError(f'method "{name}" not found')
            connection.send(await call_method(name, argument, pdk))

    async def _connection(self) -> RpcConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_unix_connection(RpcConnection, self._socket)
        except OSError as error:
            raise PluginServerDownError(str(error)) from error
        return made

    def _give_back(self, connection: RpcConnection, *, usable: bool) -> None:
        if usable and connection.is_idle and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


__all__ = [
    "ExitRequestedError",
    "PdkError",
    "PluginProtocolError",
    "PluginServerClient",
    "PluginServerClosedError",
    "PluginServerDownError",
    "PluginServerTimeoutError",
]

Clients = Callable[[str], PluginServerClient]
