"""Memory under a steady load: km-shipper, `km serve` with the embedded event store, PostgreSQL and Valkey.

Lines are added to the spool at a steady rate, for an hour, and go the whole way: shipper, stream, collector, event
store, rollup, seal. Resident memory (pages that processes share are counted once), CPU and what is waiting are
noted every 15 seconds. The slope is that of a straight line through the samples after the warm-up, by least
squares; "end" is after the load. Some memory grows with what is stored and not with time: the event store's marks
and indexes, and PostgreSQL's cache. Ends with 1 where `usage_hourly` or the event store do not say exactly what
was written. Prints a table and writes JSON to `benchmarks/results/pipeline_memory.json`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
import psycopg
from pipeline_kit import SpoolLines, Stores, cost_of, running_server, running_shipper, running_stores
from redis import Redis

from control_plane.usage.store import EventStore, EventStoreConfig
from gateway_contract.outcomes import Outcome
from gateway_contract.redis_names import usage_stream

TICKS_PER_SECOND = 10
SETTLE_SECONDS = 300
MB = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=5_000, help="lines a second")
    parser.add_argument("--warm-up", type=float, help="minutes; a quarter of the time, at most 15")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between samples")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "pipeline_memory.json")
    options = parser.parse_args()
    warm_up = min(15.0, options.minutes / 4) if options.warm_up is None else options.warm_up
    with tempfile.TemporaryDirectory(prefix="kmb") as directory, running_stores(Path(directory)) as stores:
        with running_server(stores) as server, running_shipper(stores) as (shipper, spool):
            pids = {"km serve": server.pid, "km-shipper": shipper.pid}
            pids |= {"postgres": stores.postgres.pid, "valkey": stores.valkey.pid}
            load = Load(spool / "usage.log", rate=options.rate, seconds=options.minutes * 60)
            samples = Samples(stores, pids)
            load.start()
            while load.is_alive():
                samples.take(load.written)
                load.join(options.every)
            counted = counted_when_settled(stores, load.written.total())
            samples.take(load.written)
        # the server has ended: the embedded store may be opened here
        with closing(EventStore.open(EventStoreConfig(dsn=stores.clickhouse_dsn))) as store:
            stored = store.count_events()
    written = {str(outcome): load.written[outcome] for outcome in (Outcome.SERVED, Outcome.RATE_LIMITED)}
    exact = counted == written and stored == sum(written.values())
    figures = {name: samples.figures(name, warm_up_seconds=warm_up * 60) for name in pids}
    show(figures)
    behind = max(row["not counted yet"] for row in samples.rows)
    print(f"at most {behind:,} calls were not counted yet; the load was at most {load.late_seconds} s late")
    print(f"written {written}, counted {counted}, stored {stored:,}: {'exactly' if exact else 'NOT'} the same")
    options.json.parent.mkdir(exist_ok=True)
    told = {"minutes": options.minutes, "rate": options.rate, "warm_up_minutes": warm_up}
    told |= {"written": written, "counted": counted, "stored": stored, "late_seconds": load.late_seconds}
    options.json.write_text(json.dumps({**told, "megabytes": figures, "samples": samples.rows}, indent=1) + "\n")
    return 0 if exact else 1


class Load(threading.Thread):
    """Adds lines to the live spool file at a steady rate, as Kong does: whole lines, one write."""

    def __init__(self, live_file: Path, *, rate: int, seconds: float) -> None:
        super().__init__(name="load")
        self._live_file, self._rate = live_file, rate
        self._ticks = max(1, round(seconds * TICKS_PER_SECOND))
        self._lines = SpoolLines()
        self.written: Counter[str] = Counter()
        self.late_seconds = 0.0

    def run(self) -> None:
        began, done = time.monotonic(), 0
        for tick in range(self._ticks):
            upto = self._rate * (tick + 1) // TICKS_PER_SECOND
            made = self._lines.make(
                upto - done, at_ms=time.time_ns() // 1_000_000, within_ms=1000 // TICKS_PER_SECOND
            )
            with self._live_file.open("ab", buffering=0) as file:
                file.write(made)
            refused = made.count(b'"status":429')
            self.written[Outcome.RATE_LIMITED] += refused
            self.written[Outcome.SERVED] += upto - done - refused
            done = upto
            wait = began + (tick + 1) / TICKS_PER_SECOND - time.monotonic()
            self.late_seconds = round(max(self.late_seconds, -wait), 2)
            if wait > 0:
                time.sleep(wait)


@dataclass
class Samples:
    """Resident memory and CPU by process, and what is on its way, over time."""

    stores: Stores
    pids: dict[str, int]
    rows: list[dict[str, float]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def take(self, written: Counter[str]) -> None:
        row: dict[str, float] = {"seconds": round(time.monotonic() - self._began, 1)}
        for name, pid in self.pids.items():
            row[f"{name} MB"] = round(resident_bytes(pid) / MB, 1)
            row[f"{name} CPU s"] = round(cost_of(pid).cpu_seconds, 2)
        with Redis.from_url(self.stores.valkey.url) as redis:
            row["stream entries"] = redis.xlen(usage_stream(0))
        row["not counted yet"] = written.total() - sum(counted_calls(self.stores).values())
        row["machine %"] = psutil.cpu_percent()
        self.rows.append(row)
        print(" ".join(f"{name} {value:,}" for name, value in row.items()), file=sys.stderr, flush=True)

    def figures(self, name: str, *, warm_up_seconds: float) -> dict[str, float]:
        """Return megabytes of a process; an hour's growth after the warm-up is 0 with fewer than two samples."""
        points = [(row["seconds"] / 3600, row[f"{name} MB"]) for row in self.rows]
        # the last sample is of the time after the load
        warm = [point for point in points[:-1] if point[0] * 3600 >= warm_up_seconds]
        slope = statistics.linear_regression(*zip(*warm, strict=True)).slope if len(warm) > 1 else 0.0
        seconds = self.rows[-1]["seconds"] - self.rows[0]["seconds"]
        return {
            "start": points[0][1],
            "warm": warm[0][1] if warm else points[-1][1],
            "end": points[-1][1],
            "max": max(megabytes for _, megabytes in points),
            "per_hour": round(slope, 2),
            "cores": round((self.rows[-1][f"{name} CPU s"] - self.rows[0][f"{name} CPU s"]) / seconds, 3),
        }


def resident_bytes(pid: int) -> int:
    """Return what a process and its descendants hold; a page that several of them map counts once."""
    total = 0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_full_info().pss
    return total


def counted_calls(stores: Stores) -> dict[str, int]:
    with psycopg.connect(stores.database_url.replace("+psycopg", ""), autocommit=True) as database:
        rows = database.execute("SELECT outcome, sum(calls) FROM usage_hourly GROUP BY outcome").fetchall()
    return {outcome: int(calls) for outcome, calls in rows}


def counted_when_settled(stores: Stores, written: int) -> dict[str, int]:
    """Return calls by outcome once they are as many as were written, and have been so for a while."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while sum(counted_calls(stores).values()) < written and time.monotonic() < deadline:
        time.sleep(1)
    time.sleep(5)  # one too many would come now
    counted = counted_calls(stores)
    return {str(outcome): counted.get(outcome, 0) for outcome in {Outcome.SERVED, Outcome.RATE_LIMITED, *counted}}


def show(figures: dict[str, dict[str, float]]) -> None:
    print(f"\n{'resident MB':<16}{'start':>10}{'warm':>10}{'end':>10}{'max':>10}{'MB/hour':>10}{'cores':>8}")
    for name, row in figures.items():
        sizes = "".join(f"{row[column]:>10,.1f}" for column in ("start", "warm", "end", "max", "per_hour"))
        print(f"{name:<16}{sizes}{row['cores']:>8.2f}")


if __name__ == "__main__":
    sys.exit(main())
