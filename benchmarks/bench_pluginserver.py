"""km-pluginserver against kong-pdk's own server (gevent, MsgPack): the same plugins, the same answers.

One plugin reads all headers and sets one; the other also works for a while, so that a second worker shows. In the
first comparison each server has one core, the driver another; with two workers all share both.
"""

import argparse
import tempfile
import time
from pathlib import Path

import msgpack
from gateway_kit import (
    HEADERS,
    Events,
    OurServer,
    Result,
    Server,
    answer_headers,
    connect,
    drive,
    headers_frame,
    print_rows,
    write_json,
)

PLUGIN = """
import time

class Plugin:
    def __init__(self, config):
        self.work_us = config.get("work_us", 0)

    def access(self, kong):
        headers = kong.request.get_headers()
        until = time.perf_counter() + self.work_us / 1e6
        while self.work_us and time.perf_counter() < until:
            pass
        kong.service.request.set_headers({"X-Header-Count": str(len(headers))})

Schema = []
version = "1"
priority = 1
pdk_style = "plain"
"""
WORK_US = 500


class MsgPackEvents:
    """Kong's side of MsgPack:1 on one connection, call by call."""

    exits = 0

    def __init__(self, path: Path, instance_id: int) -> None:
        self.connection = connect(path)
        event = {"InstanceId": instance_id, "EventName": "access"}
        self.start = msgpack.packb([0, 1, "plugin.HandleEvent", [event]])
        self.headers = {name: [value] for name, value in HEADERS.items()}
        self.unpacker = msgpack.Unpacker()

    def begin(self) -> None:
        self.connection.send(self.start)

    def on_readable(self) -> bool:
        self.unpacker.feed(self.connection.recv(65536))
        for _, _, error, result in self.unpacker:
            assert error is None, error
            if result["Data"] == "ret":
                return True
            value = self.headers if result["Data"]["Method"].endswith("get_headers") else None
            step = {"EventId": result["EventId"], "Data": value}
            self.connection.send(msgpack.packb([0, 1, "plugin.Step", [step]]))
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as name:
        directory = Path(name)
        (directory / "plugins").mkdir()
        (directory / "plugins" / "bench.py").write_text(PLUGIN)
        rounds = []
        for _ in range(options.rounds):
            rounds.append(measure_ours(directory, options.seconds))
            rounds.append(measure_kong_pdk(directory, options.seconds))
        scaling = [
            measure_ours(directory, options.seconds, workers=workers, cores=2, work_us=WORK_US)
            for workers in (1, 2)
        ]
    ours = max(rounds[::2], key=lambda one: one.rate)
    theirs = max(rounds[1::2], key=lambda one: one.rate)
    print_rows("server", [ours, theirs, *scaling])
    rate_ratio = ours.rate / theirs.rate
    cpu_ratio = theirs.cpu_us_per_event / ours.cpu_us_per_event
    workers_ratio = scaling[1].rate / scaling[0].rate
    print(f"ratio {rate_ratio:.1f} in events/s, {cpu_ratio:.1f} in events per CPU second (at least 3 wanted)")
    print(f"two workers: {workers_ratio:.2f} times one, on two cores which the driver shares")
    values = {"ours": ours.row(), "kong_pdk": theirs.row(), "ratio": rate_ratio, "cpu_ratio": cpu_ratio}
    scaled = {"workers": [one.row() for one in scaling], "workers_ratio": workers_ratio}
    write_json("pluginserver", values | scaled, options.json)


def measure_ours(directory: Path, seconds: float, *, workers: int = 1, cores: int = 1, work_us: int = 0) -> Result:
    options = ["--plugins", "bench", "--plugins-dir", str(directory / "plugins")]
    what = "km-pluginserver" + (f", {work_us} us of work, {workers} worker(s)" if work_us else ", one worker")
    with OurServer(directory, *options, workers=workers, cores=cores) as server:
        wait_for_workers(server, workers)
        instance_id = server.start_instance("bench", {"work_us": work_us})
        answer = answer_headers(headers_frame(HEADERS))
        return drive(what, server, lambda: Events(server.path, instance_id, answer), seconds)


def wait_for_workers(server: OurServer, workers: int) -> None:
    """The socket is there with the first worker."""
    deadline = time.monotonic() + 30
    while server.metric("km_pluginserver_workers") < workers:
        if time.monotonic() > deadline:
            raise RuntimeError("the workers did not start")
        time.sleep(0.05)


def measure_kong_pdk(directory: Path, seconds: float) -> Result:
    path = directory / "pdk.sock"
    code = "from kong_pdk.cli import start_server; start_server()"
    command = ["-c", code, "-g", "--no-lua-style", "-d", str(directory / "plugins"), "-p", str(directory)]
    with Server([*command, "--socket-name", path.name], path) as server:
        with connect(path) as connection:
            start = {"Name": "bench", "Config": "{}"}
            connection.send(msgpack.packb([0, 1, "plugin.StartInstance", [start]]))
            instance_id = msgpack.unpackb(connection.recv(4096))[3]["Id"]
        return drive("kong-pdk, gevent", server, lambda: MsgPackEvents(path, instance_id), seconds)


if __name__ == "__main__":
    main()
