"""Makes the stored events of `bench_chart.py`, and the figures that stand for them; a process of its own.

Events are drawn inside ClickHouse, a day at a time. Account 0 makes a tenth of all, at all hours, with 10 keys and
8 endpoints; the others are busy by the square of chance (the first about 60 times as busy as the last), on eight
hours of the day, with one to three keys and two to four endpoints. Nine tenths are answered with 200. Hourly
figures are counted by ClickHouse, also a day at a time, and copied into PostgreSQL as sealed hours; days are
rolled up by the product's own function.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg
from clickhouse_connect.driver.client import Client

from control_plane.accounts.model import Role
from control_plane.accounts.tables import Account
from control_plane.accounts.tokens import create_token
from control_plane.foundation.clock import utc_now
from control_plane.foundation.db import create_engine, session_factory
from control_plane.usage.completeness.tables import CompletenessRun
from control_plane.usage.daily.rollup import DailyConfig, roll_up_days
from control_plane.usage.store import EventStoreConfig
from control_plane.usage.store.client import connect, migrate

DAYS = 89  # events are stored for 90 days after theirs
OTHERS = 1_000
HEAVY_SHARE = 0.1
DAYS_PER_PASS = 2_000
MERGE_SECONDS = 120
RAW_TRIES = 3

_EVENTS = """
INSERT INTO usage_events (
    event_id, request_id, account_id, key_id, occurred_at, mode, product, service, route, endpoint, method, path,
    status, outcome, units, dimensions, bytes_in, bytes_out, latency_ms, gateway_ms, upstream_ms, client_ip,
    emitter, call_number, ingested_at, shipper
)
WITH
    arrayMap(seed -> cityHash64(number, seed), range(6)) AS chance,
    chance[1] / 18446744073709551616 AS who,
    who < {heavy_share:Float64} AS is_heavy,
    if(is_heavy, 0, 1 + toUInt32(
        {others:UInt32} * pow((who - {heavy_share:Float64}) / (1 - {heavy_share:Float64}), 2)
    )) AS account,
    (chance[2] % 1000) / 1000 AS what,
    toUInt8(if(is_heavy, 8, 2 + account % 3) * what * what) AS endpoint_number,
    [
        'GET /weather/v1/current/{city}', 'GET /weather/v1/forecast', 'POST /weather/v1/reports',
        'GET /weather/v1/history/{city}', 'GET /weather/v1/alerts', 'GET /weather/v1/stations',
        'GET /weather/v1/stations/{id}', 'GET /weather/v1/tiles/{z}'
    ][endpoint_number + 1] AS made_endpoint,
    chance[3] % 1000 AS luck,
    multiIf(luck < 900, 200, luck < 940, 404, luck < 960, 400, luck < 970, 500, 429) AS made_status,
    chance[4] % if(is_heavy, 10, 1 + account % 3) AS key_number,
    if(is_heavy, chance[5] % 24, (account * 7 + chance[5] % 8) % 24) AS hour_of_day,
    {start_ms:Int64} + hour_of_day * 3600000 + chance[6] % 3600000 AS at_ms,
    chance[6] % 97 AS took_ms
SELECT
    concat('bench0000001-', toString(number)),
    lower(concat(hex(chance[1]), hex(chance[6]))),
    concat('acc_', leftPad(toString(account), 26, '0')),
    concat('key_', leftPad(toString(account * 10 + key_number), 26, '0')),
    fromUnixTimestamp64Milli(at_ms, 'UTC'),
    if(key_number = 9, 'test', 'live'),
    'weather', 'weather', 'weather-v1', made_endpoint, splitByChar(' ', made_endpoint)[1],
    concat('/weather/v1/current/c', toString(chance[2] % 1000)),
    made_status, if(made_status = 429, 'rate_limited', 'served'), 1,
    if(endpoint_number = 2 AND made_status = 200, map('rows', chance[3] % 500), map()),
    200 + chance[4] % 100, 500 + chance[5] % 5000, took_ms + 4, 3, if(made_status = 429, -1, took_ms),
    concat('10.0.', toString(account % 256), '.', toString(chance[2] % 8)),
    'bench0000001', number, fromUnixTimestamp64Milli(at_ms + 700, 'UTC'), 'shp_bench'
FROM numbers_mt({first:UInt64}, {count:UInt64})
"""
# events are there once each: no FINAL. What is billable is so by status alone, there are no plans.
_HOURLY = """
SELECT
    account_id, hour, '' AS phase_id, product, mode, key_id, endpoint, status, outcome, 0 AS replayed,
    '' AS amendment_id,
    count() AS calls, sum(units) AS sum_units,
    if(mode = 'live' AND outcome = 'served' AND status < 500, calls, 0) AS billable_calls,
    if(billable_calls > 0, sum_units, 0) AS billable_units,
    sum(bytes_in), sum(bytes_out), sum(latency_ms), sum(gateway_ms), sum(greatest(upstream_ms, 0)),
    toJSONString(sumMap(dimensions)) AS sum_dimensions,
    if(billable_calls > 0, sum_dimensions, '{}') AS billable_dimensions, 1 AS revision
FROM usage_events
WHERE toYYYYMMDD(hour) = {day:UInt32}
GROUP BY account_id, hour, product, mode, key_id, endpoint, status, outcome
ORDER BY account_id, hour
"""
_COPY = """
COPY usage_hourly (
    account_id, hour, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, amendment_id, calls,
    units, billable_calls, billable_units, bytes_in, bytes_out, latency_ms_sum, gateway_ms_sum, upstream_ms_sum,
    dimensions, billable_dimensions, revision
) FROM STDIN
"""
_SEALED_HOURS = """
INSERT INTO usage_hours (account_id, hour, revision, aggregated_at, sealed_at)
SELECT DISTINCT account_id, hour, 1, hour + interval '62 minutes', hour + interval '63 minutes' FROM usage_hourly
"""
# what the chart by day would read without rollups
_FROM_EVENTS = """
SELECT toStartOfDay(hour) AS day, count(), sum(units), sum(bytes_in), sum(bytes_out), sum(latency_ms)
FROM usage_events FINAL
WHERE account_id = {account_id:String}
GROUP BY day ORDER BY day
"""
_SETTINGS = {"max_insert_threads": 2, "max_partitions_per_insert_block": 0, "optimize_on_insert": 0}


def account_name(number: int) -> str:
    return f"acc_{number:026d}"


@dataclass
class Made:
    """What there is, and what it took. `charted_calls`: all calls of accounts by number, as ClickHouse counts."""

    token: str
    seconds: dict[str, float]
    from_events_ms: dict[str, float]
    charted_calls: dict[str, int]
    events_bytes: int
    events_parts: int
    hourly_rows: int
    daily_rows: int
    hours: int


def fill(*, clickhouse_dsn: str, database_url: str, events: int, end: datetime, charted: list[int]) -> Made:
    """Make everything: events in the 89 days before `end`, a full hour. `charted` accounts are counted, too."""
    clock = _Clock()
    client = connect(EventStoreConfig(dsn=clickhouse_dsn))
    try:
        migrate(client)
        insert_events(client, events=events, end=end)
        clock.lap("events")
        with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as database:
            database.execute("SET timezone = 'UTC'")
            with _without_indexes(database, "usage_hourly"):
                for piece in _hourly_figures(client):
                    with database.cursor().copy(_COPY) as copy:
                        copy.write(piece)
            database.execute(_SEALED_HOURS)
            clock.lap("hours")
            token = asyncio.run(_make_rest(database_url))
            database.execute("VACUUM ANALYZE usage_hourly, usage_hours, usage_daily, usage_days")
            clock.lap("days")
            rows = {
                table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("usage_hourly", "usage_daily", "usage_hours")
            }
        _until_merged(client)
        clock.lap("merges")
        size, parts = client.query(
            "SELECT sum(bytes_on_disk), count() FROM system.parts WHERE active AND table = 'usage_events'"
        ).result_rows[0]
        found = {str(number): _from_events(client, number) for number in charted}
        clock.lap("asking events")
    finally:
        client.close()
    return Made(
        token=token,
        seconds=clock.seconds,
        from_events_ms={number: ms for number, (ms, _) in found.items()},
        charted_calls={number: calls for number, (_, calls) in found.items()},
        events_bytes=size,
        events_parts=parts,
        hourly_rows=rows["usage_hourly"],
        daily_rows=rows["usage_daily"],
        hours=rows["usage_hours"],
    )


def insert_events(client: Client, *, events: int, end: datetime) -> None:
    done = 0
    for day in range(DAYS):
        upto = events * (day + 1) // DAYS
        start = end - timedelta(days=DAYS - day)
        wanted = {
            "first": done,
            "count": upto - done,
            "start_ms": int(start.timestamp()) * 1000,
            "others": OTHERS,
            "heavy_share": HEAVY_SHARE,
        }
        client.command(_EVENTS, parameters=wanted, settings=_SETTINGS)
        done = upto


def _hourly_figures(client: Client) -> Iterator[bytes]:
    """Yield the rows of `usage_hourly` of each day, as PostgreSQL reads them."""
    days = client.query("SELECT DISTINCT toYYYYMMDD(hour) AS day FROM usage_events ORDER BY day").result_rows
    for (day,) in days:
        yield client.raw_query(
            _HOURLY,
            parameters={"day": day},
            settings={"output_format_json_quote_64bit_integers": 0},
            fmt="TabSeparated",
        )


@contextlib.contextmanager
def _without_indexes(database: psycopg.Connection, table: str) -> Iterator[None]:
    """Drop the indexes of a table while it is filled, and make them again: the same, in a fraction of the time."""
    key, key_columns = database.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = CAST(%s AS regclass) AND contype = 'p'",
        [table],
    ).fetchone()
    others = database.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname <> %s", [table, key]
    ).fetchall()
    database.execute(f"ALTER TABLE {table} DROP CONSTRAINT {key}")
    for name, _ in others:
        database.execute(f"DROP INDEX {name}")
    yield
    database.execute("SET maintenance_work_mem = '512MB'")
    database.execute(f"ALTER TABLE {table} ADD CONSTRAINT {key} {key_columns}")
    for _, definition in others:
        database.execute(definition)


async def _make_rest(database_url: str) -> str:
    """Roll up the days; make accounts and a token, whose text is returned."""
    engine = create_engine(database_url)
    sessions, now = session_factory(engine), utc_now()
    async with sessions() as session, session.begin():
        session.add_all(
            Account(id=account_name(number), name=f"Account {number}", created_at=now)
            for number in range(OTHERS + 1)
        )
        # sealed hours were checked and digested in their time
        session.add(CompletenessRun(counted_until=now, checked_until=now, digested_until=now, sampled_at=now))
        token = await create_token(session, name="bench", role=Role.OWNER, actor="bench", now=now)
    config = DailyConfig(days_per_pass=DAYS_PER_PASS)
    done = DAYS_PER_PASS
    while done:
        async with sessions() as session, session.begin():
            done = await roll_up_days(session, config=config, now=now)
    await engine.dispose()
    return token.text


def _until_merged(client: Client) -> None:
    """Wait while parts are being merged, as they would be at leisure."""
    deadline = time.monotonic() + MERGE_SECONDS
    while client.command("SELECT count() FROM system.merges") and time.monotonic() < deadline:
        time.sleep(1)


def _from_events(client: Client, number: int) -> tuple[float, int]:
    """Return the median time of a chart by day that is counted from events, in ms, and all calls in it."""
    times, calls = [], 0
    for _ in range(RAW_TRIES):
        started = time.perf_counter()
        rows = client.query(_FROM_EVENTS, parameters={"account_id": account_name(number)}).result_rows
        times.append(time.perf_counter() - started)
        calls = sum(row[1] for row in rows)
    return sorted(times)[RAW_TRIES // 2] * 1e3, calls


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
        print(f"made {name:<16}{self.seconds[name]:>8.1f} s", file=sys.stderr, flush=True)


def main(argument: str) -> None:
    wanted = json.loads(argument)
    wanted["end"] = datetime.fromisoformat(wanted["end"])
    print(json.dumps(asdict(fill(**wanted))))


if __name__ == "__main__":
    main(sys.argv[1])
