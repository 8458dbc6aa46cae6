"""What the gateway's benchmarks share: a server process on a core of its own, and Kong's side of its protocol.

The driver speaks with prepared frames and holds its connections busy, so that the server is the one that is slow.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kong_plugins.server import messages, wire

RESULTS = Path(__file__).parent / "results"
CONNECTIONS = 16
SECRET = "benchmark-" * 4
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
NIL = wire.frame(b"")
_EXIT = b"kong.response.exit"


@dataclass
class Result:
    what: str
    events: int
    seconds: float
    cpu_us_per_event: float
    latencies_ms: list[float] = field(default_factory=list, repr=False)

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def row(self) -> dict[str, Any]:
        """The figures for the JSON file."""
        row = {"what": self.what, "events_per_second": self.rate, "cpu_us_per_event": self.cpu_us_per_event}
        if self.latencies_ms:
            row |= {"p50_ms": self.percentile(50), "p99_ms": self.percentile(99)}
        return row

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class Server:
    """A server process with its children: on the first core, or on all; the driver has the rest."""

    def __init__(self, arguments: list[str], path: Path, *, cores: int = 1) -> None:
        self.path = path
        self.all_cores = sorted(os.sched_getaffinity(0))
        self.own_cores = set(self.all_cores[:cores])
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
            os.sched_setaffinity(process.pid, self.own_cores)
        os.sched_setaffinity(0, set(self.all_cores) - self.own_cores or set(self.all_cores))
        return self

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, set(self.all_cores))
        self.process.terminate()
        self.process.wait(20)
        self.path.unlink(missing_ok=True)

    def tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.tree())


class OurServer(Server):
    """km-pluginserver. Counts the CPU of its workers; the master only watches them."""

    def __init__(self, directory: Path, *options: str, workers: int = 1, cores: int = 1) -> None:
        path = directory / "km.sock"
        self.metrics_port = free_port()
        fixed = ["--socket", str(path), "--workers", str(workers), "--log-level", "error"]
        ports = ["--metrics-port", str(self.metrics_port)]
        super().__init__(["-m", "kong_plugins.server.main", *fixed, *ports, *options], path, cores=cores)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.workers())

    def start_instance(self, plugin: str, config: Mapping[str, Any]) -> int:
        raw = json.dumps({**config, "__key__": f"plugins:{plugin}", "__seq__": 1}).encode()
        call = {"cmd_start_instance": {"name": plugin, "config": raw}, "sequence": 1}
        with connect(self.path) as connection:
            connection.send(wire.frame(messages.encode("RpcCall", call)))
            answer = messages.decode("RpcReturn", connection.recv(4096)[4:])
        instance_id: int = answer["instance_status"]["instance_id"]
        return instance_id

    def metric(self, name: str) -> float:
        """Sum of all series of that name."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        series = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return sum(float(value) for labelled, _, value in series if labelled.partition("{")[0] == name)


class Events:
    """Kong's side of ProtoBuf:1: one event after the other, on a connection it keeps unless the event exits.

    `answer(method)` returns the frame that answers a call, `renew()` is called before each event.
    """

    def __init__(
        self,
        path: Path,
        instance_id: int,
        answer: Callable[[bytes], bytes],
        *,
        phase: str = "access",
        renew: Callable[[], Callable[[bytes], bytes]] | None = None,
    ) -> None:
        self.path = path
        event = {"instance_id": instance_id, "event_name": phase}
        self.start = wire.frame(messages.encode("RpcCall", {"cmd_handle_event": event, "sequence": 7}))
        self.end = wire.frame(b"") + wire.frame(b"\x08\x07")
        self.answer = answer
        self.renew = renew
        self.exits = 0
        self.connection = connect(path)

    def begin(self) -> None:
        if self.renew is not None:
            self.answer = self.renew()
        self.connection.send(self.start)

    def on_readable(self) -> bool:
        """Answer each call with a write of its own, as Kong does; True when the event has ended."""
        data = self.connection.recv(65536)
        while data != self.end:
            if not data:
                raise RuntimeError("the server has closed the connection")
            name_end = 4 + wire.frame_length(data)[0]
            whole = name_end + 4 + wire.frame_length(data, name_end)[0]
            if len(data) < whole:
                data += self.connection.recv(65536)
                continue
            name = data[4:name_end]
            if name == _EXIT:
                self.exits += 1
                self.connection.close()  # what Kong does: the request ends there
                self.connection = connect(self.path)
                return True
            self.connection.send(self.answer(name))
            data = data[whole:]
            if not data:
                return False
        return True


def answer_headers(headers: bytes) -> Callable[[bytes], bytes]:
    """Return an answer function: these headers, nil for the rest."""
    return lambda name: headers if name.endswith(b"get_headers") else NIL


def headers_frame(headers: Mapping[str, str]) -> bytes:
    return wire.frame(wire.encode_struct(headers))


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    return connection


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def drive(
    what: str, server: Server, make: Callable[[], Any], seconds: float, *, connections: int = CONNECTIONS
) -> Result:
    """Keep that many connections busy for so long, after a warm-up of a quarter of it, half a second at most."""
    poll = select.epoll()
    sides: dict[int, Any] = {}
    began: dict[int, float] = {}

    def begin(side: Any) -> None:
        descriptor = side.connection.fileno()
        began[descriptor] = time.perf_counter()
        side.begin()

    for _ in range(connections):
        side = make()
        sides[side.connection.fileno()] = side
        poll.register(side.connection.fileno(), select.EPOLLIN)
        begin(side)
    events, latencies = 0, []
    warm_until = time.perf_counter() + min(0.5, seconds / 4)
    measured_from = cpu_before = 0.0
    while True:
        for descriptor, _ in poll.poll():
            side = sides[descriptor]
            if side.on_readable():
                events += 1
                latencies.append((time.perf_counter() - began[descriptor]) * 1000)
                if side.connection.fileno() != descriptor or side.exits:
                    side.exits = 0
                    del sides[descriptor]  # closed, and with it forgotten by epoll
                    sides[side.connection.fileno()] = side
                    poll.register(side.connection.fileno(), select.EPOLLIN)
                begin(side)
        now = time.perf_counter()
        if not measured_from and now > warm_until:
            measured_from, cpu_before, events = now, server.cpu_seconds(), 0
            latencies.clear()
        elif measured_from and now - measured_from > seconds:
            break
    cpu = server.cpu_seconds() - cpu_before
    for side in sides.values():
        side.connection.close()
    poll.close()
    return Result(what, events, now - measured_from, cpu / events * 1e6, latencies)


def write_json(name: str, values: Mapping[str, Any], file: Path | None = None) -> None:
    path = file or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, **values}, indent=1) + "\n")


def print_rows(title: str, results: list[Result]) -> None:
    print(f"{title:<46}{'events/s':>11}{'CPU us/event':>14}{'p50 ms':>9}{'p99 ms':>9}")
    for one in results:
        print(
            f"{one.what:<46}{one.rate:>11,.0f}{one.cpu_us_per_event:>14.1f}"
            f"{one.percentile(50):>9.2f}{one.percentile(99):>9.2f}"
        )
