"""A conversation recorded from a real Kong, played again: the gateway gives the plugin the same answers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from devstack.gateway import protocol_messages as messages
from devstack.gateway.declarative import load_configuration
from devstack.gateway.exchange import Exchange, to_json
from devstack.gateway.headers import Headers
from devstack.gateway.http_answer import Request
from devstack.gateway.pdk import METHODS, ExitRequestedError, PdkCall, call_method
from devstack.gateway.plugin_catalog import PluginCatalog
from devstack.gateway.plugin_runner import instance_config
from devstack.gateway.plugin_servers import PluginInfo, PluginServer
from devstack.gateway.router import Router
from tests.devstack.support import REPOSITORY

RECORDING = REPOSITORY / "tests" / "contract" / "kong" / "wire-protobuf-kong-3.9.3.jsonl"
# handed out by chance or by the clock
EXIT = b"kong.response.exit"
OF_THE_MOMENT = {"kong.log.serialize"}


@dataclass
class Event:
    """One recorded event: its phase, and every PDK call with its argument and its recorded result (None: exit)."""

    phase: str
    calls: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)

    def result(self, method: str, argument: bytes = b"") -> Any:
        found = next(result for name, given, result in self.calls if (name, given) == (method, argument))
        return messages.parse(METHODS[method].result, found)


@dataclass
class Recording:
    instances: list[Any]
    events: list[Event]


def read_recording() -> Recording:
    rows = [json.loads(line) for line in RECORDING.read_text().splitlines()]
    instances, events = [], []
    waiting: tuple[str, bytes] | None = None
    for row in rows:
        if "pdk_call" in row:
            waiting = (row["pdk_call"], bytes.fromhex(row["args_hex"]))
        elif EXIT.hex() in row.get("raw_hex", ""):
            # never answered, so only the bytes are there: name and argument, each after its length
            argument = bytes.fromhex(row["raw_hex"])[4 + len(EXIT) + 4 :]
            events[-1].calls.append((EXIT.decode(), argument, None))
        elif row["from"] == "kong" and waiting is not None:
            events[-1].calls.append((*waiting, bytes.fromhex(row["frame_hex"])))
            waiting = None
        elif row["from"] == "kong":
            call = messages.parse("RpcCall", bytes.fromhex(row["frame_hex"]))
            if call.HasField("cmd_start_instance"):
                instances.append(call.cmd_start_instance)
            elif call.HasField("cmd_handle_event"):
                events.append(Event(call.cmd_handle_event.event_name))
    return Recording(instances, events)


def requests_of(recording: Recording) -> Iterator[tuple[Event, Event]]:
    """Access and log event of each request."""
    yield from zip(recording.events[::2], recording.events[1::2], strict=True)


class NoConnection:
    peer = ("127.0.0.1", 40000)
    server_port = 8100

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def configuration(created_at: int) -> Any:
    dates = {"created_at": created_at, "updated_at": created_at}
    plugin = {"name": "km-fused", "config": {"prefix": "abc"}}
    route = {"name": "km", "paths": ["/km"], "plugins": [plugin], **dates}
    service = {"name": "up", "host": "127.0.0.1", "port": 9001, "routes": [route], **dates}
    server = PluginServer("a", "", None, "")
    info = PluginInfo(
        "km-fused", 1000, "1", frozenset({"access", "log"}), [{"prefix": {"type": "string"}}], server
    )
    catalog = PluginCatalog([info], enabled=["km-fused"])
    text = yaml.safe_dump({"_format_version": "3.0", "services": [service]})
    return load_configuration(text, catalog=catalog, first_sequence=8)


def variable(access: Event, name: str) -> str:
    return access.result("kong.nginx.get_var", messages.new("String", v=name).SerializeToString()).v


def exchange_of(access: Event) -> Exchange:
    """The request that made this event."""
    request = Request(NoConnection())
    request.method = access.result("kong.request.get_method").v
    request.target = access.result("kong.request.get_path_with_query").v
    recorded = access.result("kong.request.get_headers", messages.new("Int", v=100).SerializeToString())
    request.headers = Headers()
    for name, value in messages.plain_struct(recorded).items():
        request.headers.add(name, value)
    exchange = Exchange(request)
    exchange.id = variable(access, "kong_request_id")
    exchange.nginx_id = variable(access, "request_id")
    loaded = configuration(access.result("kong.router.get_route").created_at)
    exchange.match = Router(loaded.routes).match(
        method=request.method, raw_path=exchange.raw_path, host=request.headers.get("host")
    )
    return exchange


async def replayed(event: Event, exchange: Exchange) -> list[tuple[str, Any, Any]]:
    """Each call with our result and the recorded one."""
    serialized = to_json(exchange.serialize()) if event.phase == "log" else None
    call = PdkCall(exchange, event.phase, "km-fused", serialized=serialized)
    out = []
    for name, argument, recorded in event.calls:
        try:
            ours = await call_method(name, argument, call)
        except ExitRequestedError as wanted:
            exchange.exit = wanted.answer
            assert recorded is None
            continue
        kind = METHODS[name].result
        out.append((name, messages.parse(kind, ours), messages.parse(kind, recorded)))
    return out


class TestRecordedConversation:
    def test_the_instance_is_started_with_the_same_configuration(self):
        recorded = json.loads(read_recording().instances[0].config)
        ((plugin,),) = configuration(1).chains.values()
        assert instance_config(plugin) == recorded

    async def test_every_call_of_every_request_is_answered_alike(self):
        compared = 0
        for access, log in requests_of(read_recording()):
            exchange = exchange_of(access)
            for name, ours, recorded in [*await replayed(access, exchange), *await replayed(log, exchange)]:
                if name not in OF_THE_MOMENT:
                    assert ours == recorded, name
                    compared += 1
        assert compared > 50

    async def test_the_log_says_the_same_of_caller_and_request(self):
        for access, log in requests_of(read_recording()):
            exchange = exchange_of(access)
            await replayed(access, exchange)
            recorded = json.loads(log.result("kong.log.serialize").v)
            ours = exchange.serialize()
            for name in ("consumer", "authenticated_entity", "client_ip", "workspace", "workspace_name"):
                assert ours.get(name) == recorded.get(name)
            for name in ("id", "method", "uri", "url", "headers", "querystring"):
                assert ours["request"][name] == recorded["request"][name], name
            for name in ("route", "service"):
                assert ours[name] == recorded[name]

    @pytest.mark.parametrize("status", [401, 429])
    async def test_a_refusal_leaves_as_it_was_asked_for(self, status: int):
        answers = []
        for access, _ in requests_of(read_recording()):
            exchange = exchange_of(access)
            await replayed(access, exchange)
            answers.append(exchange.exit)
        (found,) = [answer for answer in answers if answer is not None and answer.status == status]
        assert json.loads(found.body)
        assert "content-type" in {name.lower() for name in found.headers}
