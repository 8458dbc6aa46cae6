"""What the shipper's tests share: lines, a collector, and shippers in this process and outside it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import redis

from devstack.stores.valkey_cluster import open_redis
from gateway_contract import redis_names
from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode
from kong_plugins.shipper.metrics import ShipperMetrics
from kong_plugins.shipper.settings import ShipperSettings
from kong_plugins.shipper.shipper import Shipper
from kong_plugins.shipper.sink import UsageSink
from kong_plugins.shipper.spool import Spool
from kong_plugins.shipper.stream import UsageStream

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]
TEMPLATE = (DATA / "file-log-lines.jsonl").read_bytes().splitlines()[0]
SERIALIZED_LINE = (DATA / "serialized.jsonl").read_bytes().splitlines()[0]
KEY = generate_api_key(Mode.LIVE)
RECORDED_ID = b"bb59f36c2c41b660c0410948a7435445"
DEADLINE_SECONDS = 30.0


def request_id(number: int) -> str:
    return f"{number:032x}"


def file_log_line(number: int) -> bytes:
    """A line as file-log writes it, without the newline; `number` is its identity."""
    return TEMPLATE.replace(RECORDED_ID, request_id(number).encode())


def file_log_lines(numbers: Iterable[int]) -> bytes:
    return b"".join(file_log_line(number) + b"\n" for number in numbers)


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def wait_until(ready: Callable[[], bool], *, what: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class FakeCollector:
    """Reads the stream in a group, commits positions to memory that outlives Redis, publishes them.

    Like the real one it passes a position on only where an entry begins at or before it.
    """

    def __init__(self, url: str, shipper_id: str) -> None:
        self.redis = open_redis(url)
        self.stream = redis_names.usage_stream(0)
        self.positions_key = redis_names.shipper_positions(0, shipper_id)
        self.arrivals: Counter[str] = Counter()
        self.texts: dict[str, set[bytes]] = {}
        self.committed: dict[str, int] = {}
        self.dropped: dict[tuple[str, int], int] = {}
        self.claims_ms: list[int] = []
        self.gaps: list[tuple[str, int, int]] = []
        self.entry_sizes: list[int] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def pump(self, *, publish: bool = True) -> int:
        """Take and commit everything there is; returns the number of entries."""
        taken = 0
        while entries := self._read():
            taken += len(entries)
            for entry_id, fields in entries:
                self._take(fields)
                self.redis.xack(self.stream, redis_names.COLLECTOR_GROUP, entry_id)
                self.redis.xdel(self.stream, entry_id)
            if publish:
                self.publish()
        return taken

    def publish(self) -> None:
        if self.committed:
            self.redis.hset(self.positions_key, mapping=dict(self.committed))

    def start(self) -> "FakeCollector":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        self.redis.close()

    def has_all(self, numbers: Iterable[int]) -> bool:
        return all(request_id(number) in self.arrivals for number in numbers)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self.pump():
                    self.publish()
                    time.sleep(0.02)
            except redis.RedisError:
                time.sleep(0.05)

    def _read(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        try:
            found = self.redis.xreadgroup(redis_names.COLLECTOR_GROUP, "one", {self.stream: ">"}, count=100)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self.redis.xgroup_create(self.stream, redis_names.COLLECTOR_GROUP, id="0", mkstream=True)
            return self._read()
        if isinstance(found, dict):
            return [entry for batches in found.values() for batch in batches for entry in batch]
        return [entry for _, entries in found for entry in entries]

    def _take(self, fields: dict[bytes, bytes]) -> None:
        segment, lines = fields[b"segment"].decode(), fields[b"lines"]
        start, end = int(fields[b"start"]), int(fields[b"end"])
        self.claims_ms.append(int(fields[b"shipped_up_to_ms"]))
        if not segment:
            assert (start, end, lines) == (0, 0, b"")
            return
        self.entry_sizes.append(len(lines))
        for line in lines.split(b"\n") if lines else ():
            name = json.loads(line)["id"]
            self.arrivals[name] += 1
            self.texts.setdefault(name, set()).add(line)
        if dropped := int(fields[b"dropped"]):
            self.dropped[segment, start] = dropped
        at = self.committed.get(segment, 0)
        if start > at:
            self.gaps.append((segment, at, start))
        elif end > at:
            self.committed[segment] = end


class Bench:
    """A shipper in this process with a clock of its own, so that a minute takes no time."""

    def __init__(self, url: str, directory: Path, **settings: object) -> None:
        values: dict[str, object] = {"claim_margin_ms": 1000} | settings
        self.settings = ShipperSettings(spool_dir=directory, redis_url=url, port=0, **values)
        self.url, self.directory = url, directory
        self.now, self.now_ms = 1_000.0, 1_795_400_000_000
        self.live = directory / "usage.log"
        self.start()

    def open_sink(self) -> UsageSink:
        return UsageStream(url=self.url, shipper_id=self.spool.shipper_id, shards=1)

    def start(self) -> None:
        self.spool = Spool(self.directory)
        self.stream = self.open_sink()
        self.metrics = ShipperMetrics()
        self.shipper = Shipper(settings=self.settings, spool=self.spool, sink=self.stream, metrics=self.metrics)

    def close(self) -> None:
        """Forget everything that is not on disk, as a kill does."""
        self.stream.close()
        self.spool.close()

    def restart(self) -> None:
        self.close()
        self.start()

    def step(self, *, after_seconds: float = 1.0) -> None:
        """Let time pass, then do all there is to do at that moment."""
        self.now += after_seconds
        self.now_ms += round(after_seconds * 1000)
        for _ in range(1000):
            if not self.shipper.step(now=self.now, now_ms=self.now_ms):
                return
        raise AssertionError("the shipper never rests")

    def segment_files(self) -> list[Path]:
        return self.spool.segment_files()

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"km_shipper_{name}", labels) or 0.0

    def rejected(self) -> list[dict[str, object]]:
        path = self.directory / "rejected" / "rejected.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class ShipperProcess:
    """`km-shipper` as an operator runs it."""

    def __init__(self, url: str, directory: Path, *options: str, **environment: str) -> None:
        self.log_path = directory.parent / f"shipper-{time.monotonic_ns()}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kong_plugins.shipper.main", "--port", "0", *options],
                cwd=ROOT,
                env={**os.environ, "KM_SPOOL_DIR": str(directory), "KM_REDIS_URL": url, **environment},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_started(self) -> int:
        """Return the port of its health page."""
        wait_until(lambda: '"started"' in self.log() or self.process.poll() is not None, what=self.log())
        found = re.search(r'"port": (\d+)', self.log())
        assert found, self.log()
        return int(found[1])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.wait_started()}{path}", timeout=10) as answer:
            return answer.read().decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)
