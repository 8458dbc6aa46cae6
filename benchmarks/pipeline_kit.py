"""What benchmarks of an event's way share: a spool full of calls, the real processes, and what they cost."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from control_plane.entrypoints import migrations
from devstack.ports import free_port
from devstack.stores.event_store import event_store_dsn
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt

REPOSITORY = Path(__file__).parents[1]
SECRET = "benchmark-" * 4
ACCOUNTS = 200
READY_SECONDS = 60
_RECORDED = REPOSITORY / "tests" / "shipper" / "data" / "file-log-lines.jsonl"


class SpoolLines:
    """Makes lines as Kong's file-log writes them: served calls of some accounts, every twentieth refused."""

    def __init__(self, *, seed: int = 1, accounts: int = ACCOUNTS) -> None:
        line = _RECORDED.read_bytes().splitlines()[0]
        self._served = self._prepared(line.replace(b'"r-1"', b'"%s"'))
        refused = line.replace(b'"km_receipt":"r-1",', b"").replace(b'"source":"upstream"', b'"source":"kong"')
        self._refused = self._prepared(
            refused.replace(b'"r-1"', b'"%s"').replace(b'"status":200', b'"status":429')
        )
        self._chance = random.Random(seed)
        self._accounts = [f"{number:026d}" for number in range(accounts)]
        self._number = 0
        self._emitter = f"bench{seed:07d}"

    @staticmethod
    def _prepared(line: bytes) -> bytes:
        """Leave gaps for path, request id and time, in this order, beside those for receipts."""
        call = json.loads(line.replace(b"%s", b""))
        line = line.replace(b'"%s"' % call["path"].encode(), b'"/weather/v1/current/%s"')
        line = line.replace(b'"%s"' % call["request"]["id"].encode(), b'"%032x"')
        return line.replace(b":%d," % call["started_at"], b":%d,") + b"\n"

    def make(self, count: int, *, at_ms: int, within_ms: int) -> bytes:
        """Return `count` lines of calls that were decided in the `within_ms` before `at_ms`."""
        secret, chance = SECRET.encode(), self._chance
        lines = []
        for row in range(count):
            self._number += 1
            account = chance.choice(self._accounts)
            refused = row % 20 == 0
            decided_ms = at_ms - within_ms + within_ms * row // count
            receipt = Receipt(
                emitter=self._emitter,
                sequence=self._number,
                call_number=self._number,
                decided_at_ms=decided_ms,
                account_id=f"acc_{account}",
                key_id=f"key_{account}",
                product="weather",
                mode=Mode.LIVE,
                outcome=Outcome.RATE_LIMITED if refused else Outcome.SERVED,
                units=1,
            )
            answer = sign_receipt(receipt, place=Place.ANSWER, secret=secret).encode()
            rest = (b"c%d" % chance.randrange(1000), chance.getrandbits(128), decided_ms)
            if refused:
                lines.append(self._refused % (answer, *rest))
            else:
                sent = sign_receipt(receipt, place=Place.UPSTREAM, secret=secret).encode()
                lines.append(self._served % (sent, answer, *rest))
        return b"".join(lines)


@dataclass
class Cost:
    """CPU seconds and resident bytes of a process and all that it started."""

    cpu_seconds: float
    resident_bytes: int


def cost_of(pid: int) -> Cost:
    """Return what a process and its descendants have cost so far; those that have ended are their parent's."""
    cost = Cost(0.0, 0)
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            cost.cpu_seconds += sum(each.cpu_times()[:4])
            cost.resident_bytes += each.memory_info().rss
    return cost


@dataclass
class Stores:
    """PostgreSQL and Valkey that run, and where the event store will be."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    database_url: str
    directory: Path

    @property
    def clickhouse_dsn(self) -> str:
        return event_store_dsn(self.directory / "events")

    def cpu_seconds(self) -> dict[str, float]:
        return {
            "postgres": cost_of(self.postgres.pid).cpu_seconds,
            "valkey": cost_of(self.valkey.pid).cpu_seconds,
        }


@contextlib.contextmanager
def running_stores(directory: Path) -> Iterator[Stores]:
    """Yield stores of their own, with tables."""
    valkey = EmbeddedValkey(directory / "valkey")
    postgres = EmbeddedPostgres(directory / "postgres")
    valkey.start()
    postgres.start()
    try:
        url = postgres.create_database("bench").replace("postgresql://", "postgresql+psycopg://", 1)
        migrations.upgrade(url)
        yield Stores(postgres, valkey, url, directory)
    finally:
        valkey.stop()
        postgres.destroy()


@contextlib.contextmanager
def running_shipper(stores: Stores) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Yield a `km-shipper` and the spool that it looks into."""
    spool, port = stores.directory / "spool", free_port()
    environment = {"PATH": os.environ["PATH"], "KM_REDIS_URL": stores.valkey.url, "KM_SPOOL_DIR": str(spool)}
    command = [sys.executable, "-m", "kong_plugins.shipper.main", "--port", str(port)]
    with (
        (stores.directory / "shipper.log").open("w") as log,
        running(command, environment, stdout=log, stderr=log) as process,
    ):
        until_answering(f"http://127.0.0.1:{port}/readyz")
        yield process, spool


@dataclass(frozen=True)
class Server:
    """A `km serve` that answers."""

    pid: int
    url: str


@contextlib.contextmanager
def running_server(stores: Stores) -> Iterator[Server]:
    """Yield a `km serve` with all its workers."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(stores.directory),
        "KM_DATABASE_URL": stores.database_url,
        "KM_REDIS_URL": stores.valkey.url,
        "KM_CLICKHOUSE_DSN": stores.clickhouse_dsn,
        "KM_GATEWAY_SECRET": SECRET,
        "KM_KONG_CONFIG": str(REPOSITORY / "kong.yml"),
    }
    command = [sys.executable, "-m", "control_plane.entrypoints.cli", "serve", "--port", "0"]
    with (
        (stores.directory / "server.log").open("w") as log,
        running(command, environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        url = process.stdout.readline().removeprefix("listening on ").strip()
        until_answering(f"{url}/readyz")
        yield Server(process.pid, url)


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], **options) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def until_answering(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.1)
