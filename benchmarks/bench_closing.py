"""Closing the billing periods of many subscriptions: rating, drafts, final invoices.

The subscriptions of `closing_data.py` all end their first period at the same moment. Measured are the drafts that
are made then, and an hour later the final invoices: rated anew, numbered without a gap, with audit rows and news.
Several workers close at once, each a process of its own, like several `km worker`. Ends with 1 where an invoice is
missing, a number is left out, or an amount is not what the usage comes to. Prints a table and writes JSON to
`benchmarks/results/closing.json`.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg
from closing_data import FEB_1, JAN_1, make_data

from control_plane.billing.invoices.closing import ClosingConfig
from control_plane.billing.invoices.worker import close_round, sweep
from control_plane.entrypoints import migrations
from control_plane.foundation.db import create_engine, session_factory
from devstack.stores.postgres import EmbeddedPostgres

TARGET_SECONDS = 60.0
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Measured:
    """One step of closing: its time, what it took of processors, and the largest memory of a worker."""

    seconds: float
    workers_cpu_seconds: float
    postgres_cpu_seconds: float
    memory_mb: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=100_000)
    parser.add_argument("--hours", type=int, default=2, help="hours with usage on each day")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="one worker in this process, under cProfile")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "closing.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        postgres.start()
        try:
            url = postgres.create_database("bench").replace("postgresql://", "postgresql+psycopg://", 1)
            migrations.upgrade(url)
            rows = make_data(url, subscriptions=options.subscriptions, hours_a_day=options.hours)
            asyncio.run(get_ready(url))
            if options.profile:
                profiled(url)
                return 0
            load = os.getloadavg()[0]
            steps = {
                "start": measured(postgres, url, JAN_1, options.workers),
                "draft": measured(postgres, url, FEB_1, options.workers),
                "finalise": measured(postgres, url, FEB_1 + HOUR, options.workers),
            }
            load = round((load + os.getloadavg()[0]) / 2, 1)
            seconds = steps["draft"].seconds + steps["finalise"].seconds
            show(options.subscriptions, rows, steps, seconds)
            print(f"others had the machine, too: load {load} for {os.cpu_count()} cores", flush=True)
            wrong = faults(url, options.subscriptions)
        finally:
            postgres.destroy()
    told = {name: vars(step) for name, step in steps.items()}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(
        json.dumps(
            {
                "subscriptions": options.subscriptions,
                "usage_rows": rows,
                "workers": options.workers,
                "load": load,
                "seconds": seconds,
                "steps": told,
            },
            indent=2,
        )
        + "\n"
    )
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


async def get_ready(url: str) -> None:
    """Have billing know of all subscriptions before the clock runs."""
    engine = create_engine(url)
    sessions = session_factory(engine)
    for _ in range(100):
        await sweep(sessions, now=JAN_1)
    await engine.dispose()


def measured(postgres: EmbeddedPostgres, url: str, now: datetime, workers: int) -> Measured:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(warm, range(workers), chunksize=1)
        cpu_before = postgres_cpu_seconds(postgres)
        began = time.perf_counter()
        found = pool.starmap(work, [(url, now)] * workers, chunksize=1)
        seconds = time.perf_counter() - began
    time.sleep(1)  # until PostgreSQL has seen its processes end
    return Measured(
        seconds=round(seconds, 2),
        workers_cpu_seconds=round(sum(cpu for cpu, _ in found), 2),
        postgres_cpu_seconds=round(postgres_cpu_seconds(postgres) - cpu_before, 2),
        memory_mb=max(memory for _, memory in found),
    )


def postgres_cpu_seconds(postgres: EmbeddedPostgres) -> float:
    """Return what PostgreSQL has taken of processors, with the processes that have ended."""
    fields = Path(f"/proc/{postgres.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def warm(_number: int) -> None:
    """Let every process of the pool start, as `km` does: importing is no part of the time."""
    time.sleep(0.5)
    gc.freeze()


def work(url: str, now: datetime) -> tuple[float, int]:
    """Close everything that is due, beside the other workers; returns CPU seconds and the largest memory in MB."""
    began = time.process_time()
    asyncio.run(_work(url, now))
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def _work(url: str, now: datetime) -> None:
    engine = create_engine(url)
    sessions = session_factory(engine)
    while await close_round(sessions, config=ClosingConfig(), now=now) is not None:
        pass
    await engine.dispose()


def profiled(url: str) -> None:
    import cProfile
    import pstats

    for now in (JAN_1, FEB_1, FEB_1 + HOUR):
        profile = cProfile.Profile()
        began = time.perf_counter()
        profile.runcall(work, url, now)
        print(now, f"{time.perf_counter() - began:.1f} s")
        pstats.Stats(profile).sort_stats("tottime").print_stats(28)


def faults(url: str, subscriptions: int) -> list[str]:
    """Return what is wrong with the invoices, compared with sums that PostgreSQL makes of the usage itself."""
    found = []
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        # nobody has looked at the new invoices yet: joined as if there were none, they take minutes
        connection.execute("ANALYZE")
        closed, gaps = connection.execute(
            "SELECT count(*) FILTER (WHERE reason = 'period' AND status = 'open'),"
            " max(substr(number, 5)::bigint) - count(*) FROM invoices WHERE number IS NOT NULL"
        ).fetchone()
        if closed != subscriptions:
            found.append(f"{closed:,} periods are billed, not {subscriptions:,}")
        if gaps:
            found.append(f"{gaps} numbers are left out")
        (wrong,) = connection.execute(_WRONG_UNITS).fetchone()
        if wrong:
            found.append(f"{wrong} usage lines are not of the units that were used")
    return found


_WRONG_UNITS = """
SELECT count(*) FROM invoice_lines AS line JOIN subscription_phases AS phase USING (subscription_id)
JOIN (SELECT phase_id, sum(billable_units) AS units FROM usage_hourly GROUP BY 1) AS used
    ON used.phase_id = phase.id
WHERE line.kind = 'usage' AND line.used_units <> used.units
"""


def show(subscriptions: int, rows: int, steps: dict[str, Measured], seconds: float) -> None:
    print(f"{subscriptions:,} subscriptions, {rows:,} hourly rows of usage")
    for name, step in steps.items():
        cpu = f"CPU {step.workers_cpu_seconds:6.2f} s workers, {step.postgres_cpu_seconds:6.2f} s PostgreSQL"
        print(f"{name:>10}  {step.seconds:8.2f} s   {cpu}   {step.memory_mb} MB a worker")
    scaled = seconds * 100_000 / subscriptions
    print(
        f"draft and finalise: {seconds:.1f} s; 100,000 at this pace: {scaled:.1f} s, to reach: {TARGET_SECONDS} s"
    )


if __name__ == "__main__":
    sys.exit(main())
