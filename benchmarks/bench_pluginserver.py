"""km-pluginserver against kong-pdk's own server (gevent, MsgPack): the same plugin, the same answers.

The plugin reads all headers and sets one. Each server has one core, the driver another; it speaks each server's
protocol with prepared frames and holds 16 connections busy. Prints a table and writes JSON to
`benchmarks/results/pluginserver.json`.
"""

import argparse
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack
import psutil

from kong_plugins.server import messages, wire

PLUGIN = """
class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        headers = kong.request.get_headers()
        kong.service.request.set_headers({"X-Header-Count": str(len(headers))})

Schema = []
version = "1"
priority = 1
"""
HEADERS = {
    "host": "api.example.com",
    "user-agent": "python-requests/2.32.0",
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",
    "connection": "keep-alive",
    "apikey": "k" * 46,
    "content-type": "application/json",
    "x-forwarded-for": "203.0.113.9",
}
CONNECTIONS = 16


@dataclass
class Result:
    server: str
    events: int
    seconds: float
    cpu_us_per_event: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds


class ProtoBufEvents:
    """Kong's side of ProtoBuf:1 on one connection, frame by frame."""

    def __init__(self, connection: socket.socket, instance_id: int) -> None:
        self.connection = connection
        event = {"instance_id": instance_id, "event_name": "access"}
        self.start = wire.frame(messages.encode("RpcCall", {"cmd_handle_event": event, "sequence": 7}))
        self.headers = wire.frame(wire.encode_struct(HEADERS))
        self.nil = wire.frame(b"")
        self.end = wire.frame(b"") + wire.frame(b"\x08\x07")
        self.buffer = b""

    def begin(self) -> None:
        self.connection.send(self.start)

    def on_readable(self) -> bool:
        """Answer what came; True when the event has ended."""
        data = self.buffer + self.connection.recv(65536)
        self.buffer = b""
        if data == self.end:
            return True
        name_size = struct.unpack_from("<I", data)[0]
        argument_at = 4 + name_size
        whole = argument_at + 4 + struct.unpack_from("<I", data, argument_at)[0]
        assert len(data) == whole, data
        self.connection.send(self.headers if data[4:argument_at].endswith(b"get_headers") else self.nil)
        return False


class MsgPackEvents:
    """Kong's side of MsgPack:1 on one connection, call by call."""

    def __init__(self, connection: socket.socket, instance_id: int) -> None:
        self.connection = connection
        self.start = msgpack.packb(
            [0, 1, "plugin.HandleEvent", [{"InstanceId": instance_id, "EventName": "access"}]]
        )
        self.unpacker = msgpack.Unpacker()

    def begin(self) -> None:
        self.connection.send(self.start)

    def on_readable(self) -> bool:
        self.unpacker.feed(self.connection.recv(65536))
        for _, _, error, result in self.unpacker:
            assert error is None, error
            if result["Data"] == "ret":
                return True
            value = HEADERS if result["Data"]["Method"].endswith("get_headers") else None
            step = {"EventId": result["EventId"], "Data": value}
            self.connection.send(msgpack.packb([0, 1, "plugin.Step", [step]]))
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "pluginserver.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        plugins = Path(directory, "plugins")
        plugins.mkdir()
        (plugins / "bench.py").write_text(PLUGIN)
        results = []
        for _ in range(options.rounds):
            results.append(measure_ours(Path(directory), plugins, options.seconds))
            results.append(measure_kong_pdk(Path(directory), plugins, options.seconds))
    ours = max((one for one in results if one.server == "km-pluginserver"), key=lambda one: one.rate)
    theirs = max((one for one in results if one.server == "kong-pdk"), key=lambda one: one.rate)
    report(ours, theirs, options.json)


def measure_ours(directory: Path, plugins: Path, seconds: float) -> Result:
    path = directory / "km.sock"
    command = ["-m", "kong_plugins.server.main", "--socket", str(path), "--workers", "1", "--log-level", "error"]
    with Server([*command, "--plugins", "bench", "--plugins-dir", str(plugins)], path) as server:
        with connect(path) as connection:
            start = {"name": "bench", "config": b"{}"}
            connection.send(wire.frame(messages.encode("RpcCall", {"cmd_start_instance": start, "sequence": 1})))
            answer = messages.decode("RpcReturn", connection.recv(4096)[4:])
        instance_id = answer["instance_status"]["instance_id"]
        return drive("km-pluginserver", server, path, lambda one: ProtoBufEvents(one, instance_id), seconds)


def measure_kong_pdk(directory: Path, plugins: Path, seconds: float) -> Result:
    path = directory / "pdk.sock"
    code = "from kong_pdk.cli import start_server; start_server()"
    command = ["-c", code, "-g", "--no-lua-style", "-d", str(plugins), "-p", str(directory)]
    with Server([*command, "--socket-name", path.name], path) as server:
        with connect(path) as connection:
            start = {"Name": "bench", "Config": "{}"}
            connection.send(msgpack.packb([0, 1, "plugin.StartInstance", [start]]))
            instance_id = msgpack.unpackb(connection.recv(4096))[3]["Id"]
        return drive("kong-pdk", server, path, lambda one: MsgPackEvents(one, instance_id), seconds)


class Server:
    """A server process on a core of its own, with its children."""

    def __init__(self, arguments: list[str], path: Path) -> None:
        self.path = path
        self.cores = sorted(os.sched_getaffinity(0))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self):
        deadline = time.monotonic() + 30
        while not self.path.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the server at {self.path} did not start")
            time.sleep(0.02)
        for process in self.tree():
            os.sched_setaffinity(process.pid, {self.cores[0]})
        os.sched_setaffinity(0, set(self.cores[1:2] or self.cores))
        return self

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, set(self.cores))
        self.process.terminate()
        self.process.wait(20)
        self.path.unlink(missing_ok=True)

    def tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.tree())


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    return connection


def drive(name: str, server: Server, path: Path, make: object, seconds: float) -> Result:
    connections = [connect(path) for _ in range(CONNECTIONS)]
    sides = {one.fileno(): make(one) for one in connections}
    poll = select.epoll()
    for descriptor, side in sides.items():
        poll.register(descriptor, select.EPOLLIN)
        side.begin()
    events = 0
    warm_until = time.perf_counter() + min(0.5, seconds / 4)
    measured_from = cpu_before = 0.0
    while True:
        for descriptor, _ in poll.poll():
            side = sides[descriptor]
            if side.on_readable():
                events += 1
                side.begin()
        now = time.perf_counter()
        if not measured_from and now > warm_until:
            measured_from, cpu_before, events = now, server.cpu_seconds(), 0
        elif measured_from and now - measured_from > seconds:
            break
    cpu = server.cpu_seconds() - cpu_before
    for one in connections:
        one.close()
    return Result(name, events, now - measured_from, cpu / events * 1e6)


def report(ours: Result, theirs: Result, file: Path) -> None:
    print(f"{'server':<18}{'events/s':>12}{'CPU us/event':>15}{'events/s of one full core':>28}")
    for one in (ours, theirs):
        full = 1e6 / one.cpu_us_per_event
        print(f"{one.server:<18}{one.rate:>12,.0f}{one.cpu_us_per_event:>15.1f}{full:>28,.0f}")
    rate_ratio = ours.rate / theirs.rate
    cpu_ratio = theirs.cpu_us_per_event / ours.cpu_us_per_event
    print(f"ratio {rate_ratio:.1f} in events/s, {cpu_ratio:.1f} in events per CPU second (at least 3 wanted)")
    values = {"ours": asdict(ours), "kong_pdk": asdict(theirs), "ratio": rate_ratio, "cpu_ratio": cpu_ratio}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"name": "pluginserver", **values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
