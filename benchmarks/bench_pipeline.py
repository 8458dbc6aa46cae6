"""The way of an event, by stage and whole: spool, km-shipper, Valkey, collector, event store, rollup, seal.

On one core and on two: every process, the stores included, may run on no others. Stages run one after another;
clickhouse-connect inserting the same rows alone is measured in the same run. "Whole" is the time from a full spool
file appearing until `usage_hourly` says exactly what was written, with all processes at work at once: the shipper,
and `km serve` with collector, aggregators and everything else. "A core": events for each CPU second of the stage's
own process (the embedded event store is part of it), which says more than the clock on a machine that others use
as well. Prints a table, writes JSON to benchmarks/results/pipeline.json.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import clickhouse_connect
import psycopg
from pipeline_kit import (
    SECRET,
    SpoolLines,
    Stores,
    cost_of,
    running_server,
    running_shipper,
    running_stores,
)
from redis.asyncio import Redis
from sqlalchemy import text

from control_plane.foundation.clock import to_ms
from control_plane.foundation.db import create_engine, session_factory
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.collector import Collector, CollectorConfig
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.endpoints import EndpointNames, Template
from control_plane.usage.collect.lines import decode_lines
from control_plane.usage.collect.storing import EventWriter
from control_plane.usage.collect.stream import StreamSource
from control_plane.usage.extra_units import EXTRA_UNITS
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.workers import DERIVED, READ_BYTES
from devstack.stores.event_store import event_store_dsn
from gateway_contract.redis_names import usage_stream
from gateway_contract.usage_lines import FIELD_LINES, FIELD_SEGMENT

HOUR = timedelta(hours=1)
TEMPLATES = {"weather": (Template("GET", "/weather/v1/current/{city}"), Template("GET", "/weather/v1/forecast"))}
ENTRIES_PER_BATCH = 40
GIVE_UP_SECONDS = 600
STAGES = ("insert alone", "shipper", "collector", "aggregator", "seal", "whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "pipeline.json")
    parser.add_argument("--on-cores", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--spool-file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on_cores:
        # before there is any other thread: all that is started from here on inherits it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.on_cores])
        print(json.dumps(measure(options.spool_file, options.events)))
        return
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        spool_file = Path(directory) / "usage.log"
        now = time.time_ns() // 1_000_000
        spool_file.write_bytes(SpoolLines().make(options.events, at_ms=now, within_ms=7_200_000))
        figures = {}
        for cores in sorted({1, min(2, len(os.sched_getaffinity(0)))}):
            figures[f"{cores} core{'s' * (cores > 1)}"] = on_cores(cores, spool_file, options.events)
    show(figures)
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps({"events": options.events, **figures}, indent=2) + "\n")


def on_cores(cores: int, spool_file: Path, events: int) -> dict[str, dict[str, float]]:
    """Measure in a process of its own, which may use so many cores."""
    command = [sys.executable, __file__, "--on-cores", str(cores), "--spool-file", str(spool_file)]
    answer = subprocess.run(
        [*command, "--events", str(events)], stdout=subprocess.PIPE, text=True, check=True, cwd=Path.cwd()
    )
    found: dict[str, dict[str, float]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def show(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    for cores, stages in figures.items():
        print(f"\n{cores:<20}{'events/s':>12}{'a core':>12}{'us CPU':>10}  of it elsewhere, in us")
        for stage in STAGES:
            row = stages[stage]
            others = {name: value for name, value in row.items() if name.endswith("_us")}
            told = ", ".join(f"{name.removesuffix('_us')} {value:.1f}" for name, value in others.items())
            own = 1e6 / row["per_core_second"]
            print(f"{stage:<20}{row['per_second']:>12,.0f}{row['per_core_second']:>12,.0f}{own:>10.1f}  {told}")
        share = stages["collector"]["per_core_second"] / stages["insert alone"]["per_core_second"]
        print(f"the collector's speed on a core is {share:.0%} of the insert alone")


def measure(spool_file: Path, events: int) -> dict[str, dict[str, float]]:
    gc.set_threshold(100_000, 50, 100)  # as workers do
    with tempfile.TemporaryDirectory(prefix="kmb") as name, running_stores(Path(name)) as stores:
        figures = {"whole": measure_whole(stores, spool_file, events)}
    with tempfile.TemporaryDirectory(prefix="kmb") as name, running_stores(Path(name)) as stores:
        with running_shipper(stores) as (shipper, spool):
            timer = Timer(stores, lambda: cost_of(shipper.pid).cpu_seconds)
            (spool / "usage.log").hardlink_to(spool_file)
            asyncio.run(until_shipped(stores.valkey.url, events))
            figures["shipper"] = timer.stop(events)
        figures |= asyncio.run(measure_stages(stores, events))
    return figures


class Timer:
    """Measures a stage: by the clock, and in CPU seconds of its own process and of the stores beside it."""

    def __init__(self, stores: Stores, own_seconds: Callable[[], float] = time.process_time) -> None:
        self._stores, self._own_seconds = stores, own_seconds
        self._beside = stores.cpu_seconds()
        self._own, self._wall = own_seconds(), time.perf_counter()

    def stop(self, events: int) -> dict[str, float]:
        wall, own = time.perf_counter() - self._wall, self._own_seconds() - self._own
        beside = {
            f"{name}_us": (seconds - self._beside[name]) / events * 1e6
            for name, seconds in self._stores.cpu_seconds().items()
        }
        return {"per_second": events / wall, "per_core_second": events / own, **beside}


def measure_whole(stores: Stores, spool_file: Path, events: int) -> dict[str, float]:
    with running_server(stores) as server, running_shipper(stores) as (shipper, spool):
        time.sleep(3)  # the server's workers have made their tables and wait

        def own() -> float:
            return cost_of(server.pid).cpu_seconds + cost_of(shipper.pid).cpu_seconds

        shipper_before, timer = cost_of(shipper.pid).cpu_seconds, Timer(stores, own)
        (spool / "usage.log").hardlink_to(spool_file)
        deadline = time.monotonic() + GIVE_UP_SECONDS
        with psycopg.connect(stores.database_url.replace("+psycopg", ""), autocommit=True) as database:
            while (counted := counted_calls(database)) < events:
                if time.monotonic() > deadline:
                    raise SystemExit(f"only {counted} of {events} events were counted")
                time.sleep(0.1)
            figures = timer.stop(events)
            figures["shipper_us"] = (cost_of(shipper.pid).cpu_seconds - shipper_before) / events * 1e6
            time.sleep(2)
            if (counted := counted_calls(database)) != events:
                raise SystemExit(f"{counted} events were counted of {events}")
    return figures


def counted_calls(database: psycopg.Connection) -> int:
    (found,) = database.execute("SELECT coalesce(sum(calls), 0) FROM usage_hourly").fetchone()
    return int(found)


async def until_shipped(redis_url: str, events: int) -> None:
    """Look at the newest entry now and then: reading all of them would be work of its own for Valkey."""
    redis, seen = Redis.from_url(redis_url), 0
    deadline = time.monotonic() + GIVE_UP_SECONDS
    last = b"-"
    while seen < events:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {seen} of {events} events were shipped")
        if await redis.xlen(usage_stream(0)) * 500 >= events:
            for entry_id, fields in await redis.xrange(usage_stream(0), min=last):
                last = b"(" + entry_id
                lines = fields[FIELD_LINES.encode()]
                seen += lines.count(b"\n") + 1 if fields[FIELD_SEGMENT.encode()] and lines else 0
        await asyncio.sleep(0.02)
    await redis.aclose()


async def measure_stages(stores: Stores, events: int) -> dict[str, dict[str, float]]:
    """Measure what runs in a server process, in this one."""
    engine = create_engine(stores.database_url)
    sessions = session_factory(engine)
    redis = Redis.from_url(stores.valkey.url, socket_timeout=60, socket_read_size=READ_BYTES)
    dsn = stores.clickhouse_dsn
    with clickhouse_connect.get_client(dsn=dsn) as client:
        client.command("CREATE DATABASE alone")
    alone = EventStore.open(
        EventStoreConfig(dsn=event_store_dsn(stores.directory / "events", database="alone")), max_threads=1
    )
    store = EventStore.open(EventStoreConfig(dsn=dsn), max_threads=1)
    attribution = Attribution(secrets=(SECRET.encode(),), endpoints=EndpointNames(TEMPLATES))
    batches = batches_of(attribution, [fields async for fields in entries(redis)])
    alone.insert(batches[0])
    timer = Timer(stores)
    for batch in batches:
        await asyncio.to_thread(alone.insert, batch)
    figures = {"insert alone": timer.stop(sum(map(len, batches)))}
    del batches
    collector = Collector(
        config=CollectorConfig(),
        source=StreamSource(redis, shard=0),
        sessions=sessions,
        writer=EventWriter(store=store, attribution=lambda: attribution),
    )
    await collector.collect()  # the first look makes the group
    timer = Timer(stores)
    while await collector.collect():
        pass
    figures["collector"] = timer.stop(events)
    stored = store.count_events()
    if stored != events:
        raise SystemExit(f"{stored} events were stored of {events}")
    reader = EventStore.open(EventStoreConfig(dsn=dsn))
    timer = Timer(stores)
    while await aggregate_touched(sessions, reader, now=datetime.now(UTC), derive=DERIVED):
        pass
    figures["aggregator"] = timer.stop(events)
    figures["seal"] = await measure_seal(stores, sessions, reader, events)
    for opened in (reader, store, alone):
        opened.close()
    await redis.aclose()
    await engine.dispose()
    return figures


async def measure_seal(stores: Stores, sessions, reader: EventStore, events: int) -> dict[str, float]:
    """Seal all hours; they are over, and looked at once more before, as it is on every day."""
    now = datetime.now(UTC) + 3 * HOUR
    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE shippers SET retired_at = last_seen_at"))
        await seal_hours(session, config=SealingConfig(), now=now, extra_units=EXTRA_UNITS)
    while await aggregate_touched(sessions, reader, now=now, derive=DERIVED):
        pass
    hours, timer = 0, Timer(stores)
    while True:
        async with sessions() as session, session.begin():
            result = await seal_hours(session, config=SealingConfig(), now=now, extra_units=EXTRA_UNITS)
        if not result.sealed:
            break
        hours += len(result.sealed)
    return timer.stop(events) | {"hours": hours}


async def entries(redis: Redis):
    """Read the stream from its beginning, without a group."""
    last = "-"
    while found := await redis.xrange(usage_stream(0), min=last, count=ENTRIES_PER_BATCH):
        for entry_id, fields in found:
            last = b"(" + entry_id
            if fields[FIELD_SEGMENT.encode()] and fields[FIELD_LINES.encode()]:
                yield fields


def batches_of(attribution: Attribution, stream: list[dict[bytes, bytes]]) -> list[EventColumns]:
    """Return the rows that the collector will insert, in batches of the same size."""
    batches = []
    now_ms = to_ms(datetime.now(UTC))
    for first in range(0, len(stream), ENTRIES_PER_BATCH):
        batch = EventColumns()
        for fields in stream[first : first + ENTRIES_PER_BATCH]:
            lines, _ = decode_lines(fields[FIELD_LINES.encode()], shipper_id="", segment="", start_offset=0)
            batch.extend(attribution.events(lines, ingested_at_ms=now_ms))
        batches.append(batch)
    return batches


if __name__ == "__main__":
    main()
