"""Instances in plugin servers, against a server that only notes what it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devstack.gateway import protocol_messages as messages
from devstack.gateway.entities import Plugin
from devstack.gateway.pdk_call import PdkCall
from devstack.gateway.plugin_runner import EventFailedError, PluginRunner, instance_config
from devstack.gateway.plugin_servers import PluginInfo, PluginServer

NOTHING_ASKED: Any = None


def plugin(sequence: int, **config: Any) -> Plugin:
    return Plugin("id-1", "noted", 5, {"prefix": None, **config}, "route-1", None, sequence)


class NotingServer:
    """Speaks the protocol's server side; `crashes` is how many events end with a closed connection."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.crashes = 0
        self.start_seconds = 0.0
        self._next_id = 40

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "little")
                call = messages.parse("RpcCall", await reader.readexactly(length))
                if not await self._answer(call, writer):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _answer(self, call: Any, writer: asyncio.StreamWriter) -> bool:
        kind = call.WhichOneof("choice")
        reply = messages.new("RpcReturn", sequence=call.sequence)
        if kind == "cmd_start_instance":
            self.calls.append(("start", json.loads(call.cmd_start_instance.config)))
            await asyncio.sleep(self.start_seconds)
            self._next_id += 1
            reply.instance_status.instance_id = self._next_id
        elif kind == "cmd_close_instance":
            self.calls.append(("close", call.cmd_close_instance.instance_id))
        else:
            self.calls.append(("event", call.cmd_handle_event.instance_id))
            if self.crashes:
                self.crashes -= 1
                return False
            writer.write((0).to_bytes(4, "little"))
        payload = reply.SerializeToString()
        writer.write(len(payload).to_bytes(4, "little") + payload)
        return True

    def named(self, kind: str) -> list[Any]:
        return [value for name, value in self.calls if name == kind]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[NotingServer, PluginRunner]]:
    noting = NotingServer()
    socket = str(tmp_path / "s.sock")
    listener = await asyncio.start_unix_server(noting.serve, socket)
    info = PluginInfo("noted", 5, "1", frozenset({"access"}), [], PluginServer("a", socket, None, ""))
    runner = PluginRunner({"noted": info}, timeout_seconds=10)
    yield noting, runner
    runner.close()
    listener.close()


async def run(runner: PluginRunner, one: Plugin) -> None:
    await runner.run(one, "access", PdkCall(NOTHING_ASKED, "access", one.name))


class TestInstances:
    def test_carry_our_fields_and_kongs(self):
        assert instance_config(plugin(7, api_product="weather")) == {
            "api_product": "weather",
            "prefix": None,
            "__key__": "plugins:noted:route-1::::0dc6f45b-8f8d-40d2-a504-473544ee190b",
            "__seq__": 7,
            "__plugin_id": "id-1",
            "__ws_id": "0dc6f45b-8f8d-40d2-a504-473544ee190b",
            "route_id": "route-1",
        }

    async def test_one_serves_many_events(self, server: tuple[NotingServer, PluginRunner]):
        noting, runner = server
        noting.start_seconds = 0.05
        await asyncio.gather(*[run(runner, plugin(1)) for _ in range(20)])
        assert len(noting.named("start")) == 1
        assert noting.named("event") == [41] * 20

    async def test_a_push_starts_a_new_one_and_then_closes_the_old(
        self, server: tuple[NotingServer, PluginRunner]
    ):
        noting, runner = server
        await run(runner, plugin(1))
        await run(runner, plugin(2))
        assert [name for name, _ in noting.calls] == ["start", "event", "start", "close", "event"]
        assert [config["__seq__"] for config in noting.named("start")] == [1, 2]
        assert (noting.named("close"), noting.named("event")) == ([41], [41, 42])

    async def test_a_closed_connection_starts_a_new_one_and_repeats_the_event(
        self, server: tuple[NotingServer, PluginRunner]
    ):
        noting, runner = server
        noting.crashes = 1
        await run(runner, plugin(1))
        assert noting.named("event") == [41, 42]

    async def test_a_server_that_always_closes_is_given_up(self, server: tuple[NotingServer, PluginRunner]):
        noting, runner = server
        noting.crashes = 100
        with pytest.raises(EventFailedError, match="3 times in a row"):
            await run(runner, plugin(1))
        assert len(noting.named("event")) == 3

    async def test_a_server_that_is_not_there(self, tmp_path: Path):
        nowhere = PluginServer("a", str(tmp_path / "none.sock"), None, "")
        info = PluginInfo("noted", 5, "1", frozenset({"access"}), [], nowhere)
        with pytest.raises(EventFailedError, match="pluginserver error"):
            await run(PluginRunner({"noted": info}, timeout_seconds=1), plugin(1))
