"""What one km-monetize access event, with its one Redis script, costs a real km-pluginserver worker.

The real server process with one worker on a core of its own, a real Valkey and a driver on another; the driver
speaks Kong's side of the protocol with prepared frames and holds its connections busy. Prints a table, writes
JSON to benchmarks/results/access_event.json, and says whether the target was met.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import psutil
from bench_limit import PRODUCT, write_records
from bench_pluginserver import HEADERS, ProtoBufEvents, Server, connect, drive

from devstack.stores.valkey import EmbeddedValkey
from kong_plugins.server import messages, wire

TARGET_US = 130.0
PLUGIN = "km-monetize"


@dataclass
class Result:
    what: str
    events: int
    events_per_second: float
    worker_cpu_us: float


class CallerEvents(ProtoBufEvents):
    """Events of these callers in turn; each keeps answering with its caller's headers."""

    def __init__(self, connection: socket.socket, instance_id: int, frames: Iterator[bytes]) -> None:
        super().__init__(connection, instance_id)
        self.frames = frames

    def begin(self) -> None:
        self.headers = next(self.frames)
        super().begin()

    def on_readable(self) -> bool:
        """Answer each call with a write of its own, as Kong does; True when the event has ended."""
        data = self.buffer + self.connection.recv(65536)
        while data != self.end:
            name_end = 4 + wire.frame_length(data)[0]
            whole = name_end + 4 + wire.frame_length(data, name_end)[0]
            assert len(data) >= whole, data  # the worker writes calls in one piece
            self.connection.send(self.headers if data[4:name_end].endswith(b"get_headers") else self.nil)
            data = data[whole:]
            if not data:
                return False
        return True


class WorkerOnly(Server):
    """Counts the CPU of the server's workers; the master only watches them."""

    def cpu_seconds(self) -> float:
        workers = psutil.Process(self.process.pid).children()
        return sum(sum(process.cpu_times()[:2]) for process in workers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "access_event.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        valkey = EmbeddedValkey(Path(directory))
        valkey.start()
        try:
            results = measure(Path(directory), valkey.url, options.seconds, options.rounds)
        finally:
            valkey.stop()
    report(results, options.json)
    return 0


def measure(directory: Path, url: str, seconds: float, rounds: int) -> list[Result]:
    keys = write_records(url)
    os.environ.update({"KM_REDIS_URL": url, "KM_GATEWAY_SECRET": "benchmark-" * 4})
    path = directory / "km.sock"
    command = ["-m", "kong_plugins.server.main", "--socket", str(path), "--workers", "1", "--log-level", "error"]
    results = []
    with WorkerOnly([*command, "--plugins", PLUGIN], path) as server:
        instance_id = start_instance(path)
        for what, callers in (("one caller", keys[:1]), (f"{len(keys)} callers", keys)):
            frames = cycle([headers_frame(HEADERS | {"apikey": key}) for key in callers])
            for _ in range(rounds):
                done = drive(
                    what, server, path, lambda one, frames=frames: CallerEvents(one, instance_id, frames), seconds
                )
                results.append(Result(what, done.events, done.rate, done.cpu_us_per_event))
        results.append(refused_round(server, path, instance_id, seconds / 2))
    return results


def headers_frame(headers: dict[str, str]) -> bytes:
    return wire.frame(wire.encode_struct(headers))


def refused_round(server: Server, path: Path, instance_id: int, seconds: float) -> Result:
    """A refusal ends its connection, so each event has one of its own, as with Kong."""
    event = {"instance_id": instance_id, "event_name": "access"}
    begin = wire.frame(messages.encode("RpcCall", {"cmd_handle_event": event, "sequence": 7}))
    headers = headers_frame({name: value for name, value in HEADERS.items() if name != "apikey"})
    events, began, cpu = 0, time.perf_counter(), server.cpu_seconds()
    while time.perf_counter() - began < seconds:
        with connect(path) as one:
            one.send(begin)
            one.recv(4096)
            one.send(headers)
            while one.recv(65536):
                pass
        events += 1
    passed = time.perf_counter() - began
    return Result("no key (401)", events, events / passed, (server.cpu_seconds() - cpu) / events * 1e6)


def start_instance(path: Path) -> int:
    config = json.dumps({"api_product": PRODUCT, "__key__": "plugins:km-monetize", "__seq__": 1}).encode()
    call = {"cmd_start_instance": {"name": PLUGIN, "config": config}, "sequence": 1}
    with connect(path) as connection:
        connection.send(wire.frame(messages.encode("RpcCall", call)))
        answer = messages.decode("RpcReturn", connection.recv(4096)[4:])
    instance_id: int = answer["instance_status"]["instance_id"]
    return instance_id


def report(results: list[Result], file: Path) -> None:
    print(f"{'events of':<24}{'events/s':>12}{'worker CPU us/event':>22}")
    for one in results:
        print(f"{one.what:<24}{one.events_per_second:>12,.0f}{one.worker_cpu_us:>22.1f}")
    served = [one.worker_cpu_us for one in results if "caller" in one.what]
    best = min(served)
    met = "met" if best <= TARGET_US else "missed"
    print(f"best served round {best:.1f} us; target {TARGET_US:.0f} us: {met}")
    file.parent.mkdir(exist_ok=True)
    values = {"target_us": TARGET_US, "best_us": best, "rounds": [asdict(one) for one in results]}
    file.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
