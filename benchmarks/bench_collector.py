"""The collector: usage stream to event store, against clickhouse-connect inserting the same rows alone.

Real Valkey and PostgreSQL beside it, the event store embedded. "One core" is measured as CPU time of this process,
the embedded event store's threads included: a second of it is a second of one core. What the store merges in the
background is left out unless --merge asks for it: a server does that elsewhere, and how much of it falls into a
short run is chance.
The collector's row covers all it does: reading, decoding, checking receipts, naming endpoints, looking up plans,
storing, committing, publishing, acknowledging. clickhouse-connect inserts whole columns in batches of the same
size, once with the store's default settings and once with those that the collector uses.
Prints a table, writes JSON to benchmarks/results/collector.json.
"""

import argparse
import asyncio
import gc
import json
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
from redis.asyncio import Redis

from control_plane.entrypoints import migrations
from control_plane.foundation.clock import to_ms
from control_plane.foundation.db import create_engine, session_factory
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.collector import Collector, CollectorConfig
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.endpoints import EndpointNames, Template
from control_plane.usage.collect.enrichment import AccountCache
from control_plane.usage.collect.lines import decode_lines
from control_plane.usage.collect.storing import EventWriter
from control_plane.usage.collect.stream import StreamSource
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.store.events import INSERT_SETTINGS
from control_plane.usage.workers import READ_BYTES
from devstack.stores.event_store import event_store_dsn
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import usage_lines
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt
from gateway_contract.records import AccountRecord, AccountStatus, ProductGrant, Quota, Window, encode_record
from gateway_contract.redis_names import COLLECTOR_GROUP, account_record, usage_stream

SECRET = b"benchmark-" * 4
ACCOUNTS = 200
ENTRIES_PER_BATCH = CollectorConfig().max_lines // usage_lines.MAX_LINES_PER_ENTRY
LINES_PER_ENTRY = usage_lines.MAX_LINES_PER_ENTRY
CITIES = ("oslo", "lima", "cairo", "quito", "hanoi", "paris", "delhi", "accra")


@dataclass
class Result:
    what: str
    events: int
    per_second: float
    per_core_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "collector.json")
    parser.add_argument("--merge", action="store_true", help="count what the store merges meanwhile, too")
    options = parser.parse_args()
    # a worker process of ours does the same: batches are garbage as a whole, and hold no cycles
    gc.set_threshold(100_000, 50, 100)
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        valkey = EmbeddedValkey(Path(directory) / "valkey")
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        valkey.start()
        postgres.start()
        try:
            url = postgres.create_database("bench").replace("postgresql://", "postgresql+psycopg://", 1)
            migrations.upgrade(url)
            results = asyncio.run(
                measure(Path(directory) / "events", valkey.url, url, options.events, merge=options.merge)
            )
        finally:
            postgres.destroy()
            valkey.stop()
    for result in results:
        print(f"{result.what:<52}{result.per_second:>12,.0f} /s{result.per_core_second:>12,.0f} /s and core")
    for alone in results[:2]:
        share = results[2].per_core_second / alone.per_core_second
        print(f"{'the collector against ' + alone.what.partition(':')[0]:<52}{share:>12.0%}")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


async def measure(
    events_directory: Path, redis_url: str, database_url: str, events: int, *, merge: bool
) -> list[Result]:
    engine = create_engine(database_url)
    redis = Redis.from_url(redis_url, socket_timeout=60, socket_read_size=READ_BYTES)
    sessions = session_factory(engine)
    dsn = event_store_dsn(events_directory)
    with clickhouse_connect.get_client(dsn=dsn) as client:
        client.command("CREATE DATABASE alone")
    other = EventStore.open(
        EventStoreConfig(dsn=event_store_dsn(events_directory, database="alone")), max_threads=1
    )
    store = EventStore.open(EventStoreConfig(dsn=dsn), max_threads=1)
    if not merge:
        store._client.command("SYSTEM STOP MERGES")  # noqa: SLF001 - of all tables
    templates = {
        "weather": (Template("GET", "/weather/v1/current/{city}"), Template("GET", "/weather/v1/forecast"))
    }
    attribution = Attribution(secrets=(SECRET,), endpoints=EndpointNames(templates))
    entries = [make_entry(number) for number in range(max(1, events // LINES_PER_ENTRY))]
    expected = len(entries) * LINES_PER_ENTRY
    alone = [
        await asyncio.to_thread(insert_alone, other, attribution, entries, settings=settings, what=what)
        for what, settings in (
            ("default insert: clickhouse-connect alone", {}),
            ("our settings: clickhouse-connect alone", INSERT_SETTINGS),
        )
    ]
    collector = Collector(
        config=CollectorConfig(),
        source=StreamSource(redis, shard=0),
        sessions=sessions,
        writer=EventWriter(store=store, attribution=lambda: attribution),
        accounts=AccountCache(redis),
    )
    for number in range(ACCOUNTS):
        await redis.set(account_record(f"acc_{number:026d}"), make_record(number))
    await redis.xgroup_create(usage_stream(0), COLLECTOR_GROUP, id="0", mkstream=True)
    position = 0
    for lines in entries:
        fields = {
            usage_lines.FIELD_SHIPPER: "bench",
            usage_lines.FIELD_SEGMENT: "segment",
            usage_lines.FIELD_START: position,
            usage_lines.FIELD_END: position + len(lines) + 1,
            usage_lines.FIELD_SHIPPED_UP_TO_MS: 0,
            usage_lines.FIELD_LINES: lines,
        }
        position += len(lines) + 1
        await redis.xadd(usage_stream(0), fields)
    wall, cpu = time.perf_counter(), time.process_time()
    while await collector.collect():
        pass
    collected = result("collector: stream to event store", expected, wall, cpu)
    assert store.count_events() == expected
    reader = EventStore.open(EventStoreConfig(dsn=dsn))
    wall, cpu = time.perf_counter(), time.process_time()
    hours = 0
    while done := await aggregate_touched(sessions, reader, now=datetime.now(UTC)):
        hours += done
    aggregated = result(f"aggregator: {hours} hours recomputed, in events", expected, wall, cpu)
    for opened in (reader, store, other):
        opened.close()
    await redis.aclose()
    await engine.dispose()
    return [*alone, collected, aggregated]


def insert_alone(
    store: EventStore, attribution: Attribution, entries: list[bytes], *, settings: dict[str, int], what: str
) -> Result:
    """Insert the same rows in the same batches, with nothing else to do."""
    batches = []
    for first in range(0, len(entries), ENTRIES_PER_BATCH):
        batch = EventColumns()
        for raw in entries[first : first + ENTRIES_PER_BATCH]:
            lines, _ = decode_lines(raw, shipper_id="", segment="", start_offset=0)
            batch.extend(attribution.events(lines, ingested_at_ms=to_ms(datetime.now(UTC))))
        batches.append(batch.columns)
    client = store._client  # noqa: SLF001 - nothing of ours between
    names = list(batches[0])
    described = {row[0]: row[1] for row in client.query("DESCRIBE TABLE usage_events").result_rows}

    def insert(columns: dict[str, Any]) -> None:
        client.insert(
            "usage_events",
            list(columns.values()),
            column_names=names,
            column_type_names=[described[name] for name in names],
            column_oriented=True,
            settings=settings,
        )

    insert(batches[0])
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        insert(batch)
    done = result(what, total(batches), wall, cpu)
    client.command("TRUNCATE TABLE usage_events")  # and what is still to be merged of it
    return done


def total(batches: list[dict[str, Any]]) -> int:
    return sum(len(batch["event_id"]) for batch in batches)


def result(what: str, events: int, wall: float, cpu: float) -> Result:
    return Result(what, events, events / (time.perf_counter() - wall), events / (time.process_time() - cpu))


def make_record(number: int) -> str:
    windows, quota = (Window(50, 1000),), Quota(500_000, hard=False)
    grant = ProductGrant(f"sub_{number}", "growth", "Growth", 1, windows, quota, ())
    account_id = f"acc_{number:026d}"
    return encode_record(AccountRecord(account_id, "Bench", AccountStatus.ACTIVE, 1, {"weather": grant}))


def make_entry(number: int) -> bytes:
    """Return an entry's lines: served calls of some accounts, every twentieth refused, every tenth with tokens."""
    chance = random.Random(number)
    now_ms = to_ms(datetime.now(UTC))
    lines = []
    for row in range(LINES_PER_ENTRY):
        account = f"{chance.randrange(ACCOUNTS):026d}"
        refused = row % 20 == 0
        receipt = Receipt(
            emitter="benchmarkemitter",
            sequence=number * LINES_PER_ENTRY + row,
            call_number=row,
            decided_at_ms=now_ms + row,
            account_id=f"acc_{account}",
            key_id=f"key_{account}",
            product="weather",
            mode=Mode.LIVE,
            outcome=Outcome.RATE_LIMITED if refused else Outcome.SERVED,
            units=1,
        )
        lines.append(
            {
                "v": 1,
                "id": f"{chance.getrandbits(128):032x}",
                "at": now_ms + row,
                "ru": "" if refused else sign_receipt(receipt, place=Place.UPSTREAM, secret=SECRET),
                "ra": sign_receipt(receipt, place=Place.ANSWER, secret=SECRET),
                "sv": "weather",
                "rt": "weather-v1",
                "m": "GET",
                "p": f"/weather/v1/current/{chance.choice(CITIES)}{row % 100}",
                "st": 429 if refused else 200,
                "so": "kong" if refused else "upstream",
                "bi": 312,
                "bo": 1268,
                "lt": 14,
                "lk": 3,
                "lp": 11,
                "ip": f"198.51.100.{row % 250}",
                "u": {"tokens": str(row)} if row % 10 == 0 else {},
            }
        )
    return b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines)


if __name__ == "__main__":
    main()
