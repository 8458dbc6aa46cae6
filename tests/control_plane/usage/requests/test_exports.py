"""Exports: each row once, by one worker at a time, whatever happens to workers; files go in time."""

import asyncio
import csv
import hashlib
import itertools
import json
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.usage.daily.tables import UsageDay
from control_plane.usage.requests.exports import operations
from control_plane.usage.requests.exports.model import (
    ExportConfig,
    ExportKind,
    ExportStatus,
    ExportStatusError,
    ExportWish,
    TooManyExportsError,
    tiles,
)
from control_plane.usage.requests.exports.queries import export_job, file_name, list_exports
from control_plane.usage.requests.exports.queue import ExportQueue, LostJobError, WrittenFile
from control_plane.usage.requests.exports.tables import ExportJob
from control_plane.usage.requests.exports.worker import Exporter, run_exports
from control_plane.usage.requests.model import EventFilters, EventSpan
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.store.event_reads import FileFormat
from control_plane.usage.tables import UsageHourly
from tests.control_plane.builders import audit_of
from tests.control_plane.usage.requests.conftest import NOON, an_event

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def clock_at(now: datetime) -> Callable[[], datetime]:
    return lambda: now


@dataclass
class Exports:
    """Asking for exports, and doing them."""

    sessions: async_sessionmaker[AsyncSession]
    config: ExportConfig
    store: EventStore

    async def request(
        self,
        kind: str = "events",
        file_format: str = "csv",
        *,
        account_id: str | None = None,
        start: datetime = NOON - DAY,
        end: datetime = NOON + DAY,
        actor: str = "token:tok_1",
        now: datetime = NOON,
        **filters: Any,
    ) -> str:
        wish = ExportWish(
            kind=ExportKind(kind),
            file_format=FileFormat(file_format),
            span=EventSpan(account_id=account_id, start=start, end=end),
            filters=EventFilters(**filters),
        )
        async with self.sessions() as session, session.begin():
            job = await operations.request_export(session, wish=wish, config=self.config, actor=actor, now=now)
            return job.id

    async def cancel(self, export_id: str) -> None:
        async with self.sessions() as session, session.begin():
            await operations.cancel_export(session, export_id=export_id, actor="token:tok_2", now=NOON)

    def worker(self, now: datetime = NOON, stop: asyncio.Event | None = None, **changes: Any) -> Exporter:
        return Exporter(
            config=replace(self.config, **changes),
            sessions=self.sessions,
            store=self.store,
            stop=stop or asyncio.Event(),
            clock=clock_at(now),
        )

    async def job(self, export_id: str) -> ExportJob:
        async with self.sessions() as session:
            return await export_job(session, export_id)

    async def finished(self, export_id: str) -> tuple[ExportJob, Path]:
        job = await self.job(export_id)
        assert (job.status, job.error) == ("done", "")
        path = self.config.directory / file_name(job)
        content = path.read_bytes()
        assert (job.size_bytes, job.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        return job, path

    async def done(self, *wish: str, **filters: Any) -> tuple[ExportJob, Path]:
        export_id = await self.request(*wish, **filters)
        assert await self.worker().work()
        return await self.finished(export_id)

    async def until_done(self, export_id: str) -> None:
        async with asyncio.timeout(30):
            while (await self.job(export_id)).status != "done":  # noqa: ASYNC110 - another worker's doing
                await asyncio.sleep(0.02)

    def files(self) -> list[str]:
        return [path.name for path in self.config.directory.iterdir()]


@pytest.fixture
def exports(sessions, store, tmp_path: Path) -> Exports:
    config = ExportConfig(directory=tmp_path / "exports", piece_rows=50, min_free_mb=0, pause_seconds=0.01)
    return Exports(sessions, config, store)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


SPREAD = [
    an_event(
        number,
        occurred_at_ms=an_event(0).occurred_at_ms + number * 97_000,
        account_id=f"acc_{number % 2}",
        dimensions={"tokens": number} if number % 3 else {},
        flags=("replayed",) if number % 10 == 0 else (),
        status=500 if number % 4 == 0 else 200,
    )
    for number in range(400)
]


class TestEvents:
    async def test_a_parquet_file_has_each_event_once_and_whole(self, store, keep, exports):
        keep(*SPREAD, *SPREAD[::3])
        export_id = await exports.request(file_format="parquet")
        assert await exports.worker().work()
        job, path = await exports.finished(export_id)
        assert (job.total_rows, job.done_rows) == (400, 400)
        rows = pq.read_table(path).to_pylist()
        assert [row["event_id"] for row in rows] == [event.event_id for event in SPREAD]
        for row, event in zip(rows, SPREAD, strict=True):
            expected = {**event.as_dict(), "occurred_at": from_ms(event.occurred_at_ms)}
            del expected["version"], expected["occurred_at_ms"]
            assert {
                **row,
                "dimensions": dict(row["dimensions"]),
                "properties": dict(row["properties"]),
            } == expected
        assert pq.ParquetFile(path).metadata.num_row_groups > 5
        # and ClickHouse itself reads back what history counts
        counted = store.query(f"SELECT uniqExact(event_id), count() FROM file('{path}', Parquet)", {})[0]
        assert tuple(counted) == (400, store.count_events())

    async def test_a_csv_file_has_one_line_of_names(self, keep, exports):
        keep(*SPREAD)
        export_id = await exports.request(account_id="acc_1", lowest_status=200, highest_status=299)
        await exports.worker().work()
        job, path = await exports.finished(export_id)
        wanted = [event for event in SPREAD if event.account_id == "acc_1" and event.status == 200]
        rows = read_csv(path)
        assert [row["event_id"] for row in rows] == [event.event_id for event in wanted]
        assert [json.loads(row["dimensions"]) for row in rows] == [dict(event.dimensions) for event in wanted]
        assert rows[0]["occurred_at"] == from_ms(wanted[0].occurred_at_ms).isoformat(
            timespec="milliseconds"
        ).replace("+00:00", "Z")
        assert job.done_rows == len(wanted)

    async def test_no_cell_is_a_formula_or_breaks_its_line(self, keep, exports):
        bad = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", 'a"b,c', "line\nbreak\rhere", "'=1", "fine"]
        keep(*(an_event(number, path=path, method="-X") for number, path in enumerate(bad)))
        export_id = await exports.request()
        await exports.worker().work()
        _, path = await exports.finished(export_id)
        rows = read_csv(path)
        expected = ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "' =1", "' =1", 'a"b,c', "line break here", "'=1", "fine"]
        assert [row["path"] for row in rows] == expected
        assert {row["method"] for row in rows} == {"'-X"}
        assert len(path.read_bytes().splitlines()) == len(bad) + 1

    @pytest.mark.parametrize("file_format", ["csv", "parquet"])
    async def test_a_span_without_events_is_a_file_without_rows(self, exports, file_format):
        export_id = await exports.request(file_format=file_format)
        await exports.worker().work()
        job, path = await exports.finished(export_id)
        columns = pq.read_table(path).column_names if file_format == "parquet" else read_header(path)
        assert (job.done_rows, columns[:2]) == (0, ["event_id", "request_id"])

    async def test_an_hour_with_too_many_is_cut_finer(self, keep, exports):
        keep(*(an_event(number, occurred_at_ms=an_event(0).occurred_at_ms + number * 40) for number in range(500)))
        export_id = await exports.request(file_format="parquet")
        await exports.worker().work()
        _, path = await exports.finished(export_id)
        metadata = pq.ParquetFile(path).metadata
        assert metadata.num_rows == 500
        assert max(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)) <= 50

    async def test_more_rows_than_allowed_fail_before_anything_is_written(self, keep, exports):
        keep(*SPREAD)
        export_id = await exports.request()
        await exports.worker(max_rows=399).work()
        job = await exports.job(export_id)
        assert job.status == "failed"
        assert "399" in job.error
        assert exports.files() == []

    async def test_more_bytes_than_allowed_fail(self, keep, exports):
        keep(*SPREAD)
        export_id = await exports.request()
        await exports.worker(max_bytes=5_000).work()
        assert (await exports.job(export_id)).status == "failed"
        assert exports.files() == []


def read_header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


async def some_rollups(sessions, count=130) -> list[dict]:
    rows = [
        {
            "account_id": f"acc_{number % 3}",
            "hour": NOON - number * HOUR,
            "phase_id": "pha_1" if number % 2 else "",
            "product": "weather",
            "mode": "live",
            "key_id": "=key",
            "endpoint": "GET /",
            "status": 200,
            "outcome": "served",
            "replayed": number % 5 == 0,
            "calls": number,
            "units": number * 2,
            "billable_calls": 0 if number % 5 == 0 else number,
            "billable_units": 0,
            "bytes_in": 2**40,
            "bytes_out": 1,
            "latency_ms_sum": 1,
            "gateway_ms_sum": 1,
            "upstream_ms_sum": 1,
            "dimensions": {"tokens": number, "ümläut$": 2} if number % 2 else {},
            "billable_dimensions": {},
            "revision": 1,
        }
        for number in range(count)
    ]
    async with sessions() as session, session.begin():
        session.add_all(UsageHourly(**row) for row in rows)
    return rows


class TestRollups:
    @pytest.mark.parametrize("file_format", ["csv", "parquet"])
    async def test_are_the_rows_of_the_rollup(self, exports, file_format, monkeypatch):
        monkeypatch.setattr("control_plane.usage.requests.exports.sources.ROLLUPS_AT_ONCE", 40)
        rows = await some_rollups(exports.sessions)
        export_id = await exports.request("rollups", file_format, start=NOON - 99 * HOUR, end=NOON)
        await exports.worker().work()
        job, path = await exports.finished(export_id)
        wanted = sorted(
            (row for row in rows if NOON - 99 * HOUR <= row["hour"] < NOON),
            key=lambda row: (row["account_id"], row["hour"]),
        )
        assert job.done_rows == len(wanted) == 99
        if file_format == "csv":
            found = read_csv(path)
            assert [int(row["calls"]) for row in found] == [row["calls"] for row in wanted]
            assert [json.loads(row["dimensions"]) for row in found] == [row["dimensions"] for row in wanted]
            assert {row["key_id"] for row in found} == {"'=key"}
            assert found[0]["hour"] == wanted[0]["hour"].isoformat().replace("+00:00", "Z")
        else:
            found = pq.read_table(path).to_pylist()
            for row, expected in zip(found, wanted, strict=True):
                row |= {
                    "dimensions": dict(row["dimensions"]),
                    "billable_dimensions": dict(row["billable_dimensions"]),
                }
                assert {name: row[name] for name in expected} == expected

    async def test_are_refused_of_days_whose_hours_were_dropped(self, exports, sessions):
        """A file without their rows would look as if nothing had been used."""
        async with sessions() as session, session.begin():
            day = NOON.replace(hour=0)
            session.add(UsageDay(account_id="acc_1", day=day, rolled_up_at=NOON, hours_dropped_at=NOON))
        with pytest.raises(ValidationFailedError) as refused:
            await exports.request("rollups", start=day)
        assert refused.value.field == "start"
        await exports.request("rollups", start=day + DAY, end=day + 2 * DAY)
        await exports.request("events", start=day)

    async def test_take_full_hours_and_no_single_requests(self, exports):
        with pytest.raises(ValidationFailedError) as refused:
            await exports.request("rollups", start=NOON + timedelta(minutes=1))
        assert refused.value.field == "start"
        with pytest.raises(ValidationFailedError) as refused:
            await exports.request("rollups", request_id="a")
        assert refused.value.field == "request_id"


class TestQueue:
    async def test_jobs_are_taken_in_turn_and_by_one_worker_each(self, exports):
        wanted = [await exports.request(now=NOON + number * HOUR) for number in range(4)]
        queue = ExportQueue(exports.sessions, exports.config)
        taken = await asyncio.gather(*(queue.claim(NOON + DAY) for _ in range(6)))
        assert sorted(job.id for job in taken if job) == wanted
        assert taken.count(None) == 2

    async def test_a_killed_workers_job_starts_anew_and_comes_out_whole(self, keep, exports, store):
        keep(*SPREAD)
        export_id = await exports.request(file_format="parquet")
        dying = exports.worker()

        async def die(*_: object, **__: object) -> None:
            raise asyncio.CancelledError

        real, steps = dying._queue.keep, 0

        async def dies_at_the_third_piece(*arguments: object, **named: object) -> None:
            nonlocal steps
            steps += 1
            await (die if steps == 6 else real)(*arguments, **named)

        dying._queue.keep = dies_at_the_third_piece
        with pytest.raises(asyncio.CancelledError):
            await dying.work()
        # as a process that is killed leaves it
        (exports.config.directory / f"{export_id}.1.parquet").write_bytes(b"PAR1 half of a file")
        job = await exports.job(export_id)
        assert (job.status, job.attempt) == ("running", 1)
        assert not await exports.worker(NOON + exports.config.lease).work()
        later = exports.worker(NOON + exports.config.lease + timedelta(seconds=1))
        assert await later.work()
        job, path = await exports.finished(export_id)
        assert (job.attempt, pq.read_table(path).num_rows) == (2, 400)
        await later.housekeep()
        assert exports.files() == [path.name]

    async def test_a_job_that_ends_all_its_workers_is_given_up(self, exports):
        """Else it would end each process that takes it, one after another, for ever."""
        export_id, other = await exports.request(), await exports.request(now=NOON + HOUR)
        queue = ExportQueue(exports.sessions, replace(exports.config, attempts=2))
        now = NOON
        for attempt in (1, 2):
            assert (await queue.claim(now)).attempt == attempt
            now += 2 * exports.config.lease
        assert await queue.claim(now) is None
        job = await exports.job(export_id)
        assert (job.status, job.lease_until, job.finished_at) == ("failed", None, now)
        assert (await queue.claim(now)).id == other

    async def test_whoever_lost_a_job_can_change_nothing_of_it(self, exports):
        await exports.request()
        queue = ExportQueue(exports.sessions, exports.config)
        slow = await queue.claim(NOON)
        quick = await queue.claim(NOON + 2 * exports.config.lease)
        assert (slow.id, quick.attempt) == (quick.id, 2)
        written = WrittenFile(1, 1, "0" * 64)
        for change in (
            queue.keep(slow, done_rows=1, size_bytes=1, total_rows=1, now=NOON),
            queue.finish(slow, written, now=NOON),
            queue.fail(slow, "no", now=NOON),
            queue.give_back(slow, now=NOON, pause=timedelta(0)),
        ):
            with pytest.raises(LostJobError):
                await change
        await queue.finish(quick, written, now=NOON)

    async def test_a_cancelled_job_stops_at_its_next_piece_and_leaves_no_file(self, keep, exports):
        keep(*SPREAD)
        export_id = await exports.request()
        exporter = exports.worker()
        real = exporter._queue.keep

        async def cancelled_meanwhile(job: ExportJob, **progress: object) -> None:
            if progress["done_rows"]:
                await exports.cancel(export_id)
            await real(job, **progress)

        exporter._queue.keep = cancelled_meanwhile
        assert await exporter.work()
        job = await exports.job(export_id)
        assert (job.status, job.lease_until) == ("cancelled", None)
        assert exports.files() == []
        assert not await exports.worker(NOON + DAY).work()

    async def test_a_failure_is_tried_again_and_given_up_in_the_end(self, keep, exports, store, monkeypatch):
        keep(*SPREAD)
        export_id = await exports.request()

        def broken(*_: object, **__: object) -> bytes:
            raise ConnectionError("the store went away")

        monkeypatch.setattr(store, "raw", broken)
        now = NOON
        for attempt in (1, 2):
            with pytest.raises(ConnectionError):
                await exports.worker(now, attempts=3).work()
            job = await exports.job(export_id)
            assert (job.status, job.attempt) == ("running", attempt)
            assert not await exports.worker(now, attempts=3).work()
            now += timedelta(seconds=exports.config.retry_seconds * 3)
        with pytest.raises(ConnectionError):
            await exports.worker(now, attempts=3).work()
        job = await exports.job(export_id)
        assert job.status == "failed"
        assert "went away" not in job.error
        assert exports.files() == []

    async def test_at_the_stop_a_job_goes_back_to_the_queue(self, keep, exports):
        keep(*SPREAD)
        export_id = await exports.request()
        stop = asyncio.Event()
        stop.set()
        await exports.worker(stop=stop).work()
        assert (await exports.job(export_id)).status == "queued"
        assert await exports.worker().work()
        await exports.finished(export_id)

    async def test_files_go_when_their_time_is_over(self, exports):
        export_id = await exports.request()
        await exports.worker().work()
        _, path = await exports.finished(export_id)
        (exports.config.directory / "notes.txt").write_text("somebody else's")
        await exports.worker(NOON + exports.config.keep - timedelta(seconds=1)).housekeep()
        assert path.exists()
        await exports.worker(NOON + exports.config.keep).housekeep()
        assert exports.files() == ["notes.txt"]
        assert (await exports.job(export_id)).status == "expired"

    async def test_only_the_owner_of_the_process_may_read_files(self, exports):
        export_id = await exports.request()
        await exports.worker().work()
        _, path = await exports.finished(export_id)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(exports.config.directory.stat().st_mode) == 0o700

    async def test_a_nearly_full_disk_stops_the_writing(self, keep, exports):
        keep(*SPREAD)
        export_id = await exports.request()
        with pytest.raises(OSError, match="would be left"):
            await exports.worker(min_free_mb=10**9).work()
        assert (await exports.job(export_id)).status == "running"
        assert exports.files() == []

    async def test_the_database_refuses_impossible_states(self, exports):
        await exports.request()
        for values in ({"status": "running"}, {"status": "done"}, {"status": "lost"}):
            async with exports.sessions() as session:
                with pytest.raises(Exception, match="ck_export_jobs"):
                    await session.execute(update(ExportJob).values(**values))


class TestOperations:
    async def test_too_many_are_refused(self, exports):
        for _ in range(exports.config.max_waiting_each):
            await exports.request()
        with pytest.raises(TooManyExportsError, match="Each token"):
            await exports.request()
        others = (exports.config.max_waiting - exports.config.max_waiting_each) // exports.config.max_waiting_each
        for number in range(others * exports.config.max_waiting_each):
            await exports.request(actor=f"token:{number % others}")
        with pytest.raises(TooManyExportsError, match="All together"):
            await exports.request(actor="token:new")

    async def test_asking_fetching_and_calling_off_stand_in_the_audit_log(self, exports, session):
        export_id = await exports.request(product="weather")
        await exports.worker().work()
        async with exports.sessions() as other, other.begin():
            arguments = {
                "export_id": export_id,
                "config": exports.config,
                "actor": "token:tok_2",
                "now": NOON,
            }
            job, path = await operations.take_file(other, **arguments)
            assert path.stat().st_size == job.size_bytes
        called_off = await exports.request()
        for _ in range(2):
            await exports.cancel(called_off)
        rows = [(row.action, row.actor) for row in await audit_of(session, export_id)]
        assert rows == [("export.requested", "token:tok_1"), ("export.downloaded", "token:tok_2")]
        assert [row.action for row in await audit_of(session, called_off)] == [
            "export.requested",
            "export.cancelled",
        ]

    async def test_there_is_a_file_only_while_it_is_done(self, exports):
        export_id = await exports.request()
        arguments = {"export_id": export_id, "config": exports.config, "actor": "token:x"}
        async with exports.sessions() as session:
            with pytest.raises(ExportStatusError) as refused:
                await operations.take_file(session, **arguments, now=NOON)
            assert refused.value.code == "export_queued"
        await exports.worker().work()
        async with exports.sessions() as session:
            with pytest.raises(ExportStatusError) as refused:
                await operations.take_file(session, **arguments, now=NOON + exports.config.keep)
            assert refused.value.code == "export_expired"
            elsewhere = replace(exports.config, directory=exports.config.directory / "elsewhere")
            with pytest.raises(operations.ExportFileMissingError):
                await operations.take_file(session, **{**arguments, "config": elsewhere}, now=NOON)
            with pytest.raises(ExportStatusError):
                await operations.cancel_export(session, export_id=export_id, actor="token:x", now=NOON)
            with pytest.raises(NotFoundError):
                await operations.cancel_export(session, export_id="exp_0", actor="token:x", now=NOON)

    async def test_lists_newest_first(self, exports, session):
        made = [await exports.request(now=NOON + number * HOUR) for number in range(3)]
        first = await list_exports(session, limit=2)
        second = await list_exports(session, limit=2, cursor=first.next_cursor)
        assert [job.id for job in (*first.items, *second.items)] == made[::-1]
        none = await list_exports(session, status=ExportStatus.DONE, kinds=[ExportKind.ROLLUPS])
        assert none.items == ()


class TestTiles:
    def test_cover_the_span_and_hold_about_as_many_rows_as_wanted(self):
        start_ms = an_event(0).occurred_at_ms
        slices = [(start_ms + number * 1000, 1 + number % 7) for number in range(100)]
        span = EventSpan(account_id=None, start=NOON - HOUR, end=NOON + HOUR)
        parts = list(tiles(span, slices, most=20))
        assert (parts[0].start, parts[-1].end) == (span.start, span.end)
        for before, after in itertools.pairwise(parts):
            assert before.end == after.start
        for part in parts:
            assert sum(rows for at, rows in slices if part.start <= from_ms(at) < part.end) <= 20


class TestRunExports:
    async def test_does_what_is_asked_for_until_it_is_stopped(self, keep, exports, clickhouse_dsn):
        keep(*SPREAD)
        stop = asyncio.Event()
        running = asyncio.create_task(
            run_exports(
                config=exports.config,
                event_store=EventStoreConfig(dsn=clickhouse_dsn),
                sessions=exports.sessions,
                stop=stop,
                clock=clock_at(NOON),
            )
        )
        try:
            export_id = await exports.request()
            await exports.until_done(export_id)
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)
        assert len(read_csv((await exports.finished(export_id))[1])) == 400

    async def test_outlives_failures(self, exports, clickhouse_dsn, monkeypatch, store):
        stop = asyncio.Event()
        failures = 2

        async def fails_twice(self: Exporter) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise ConnectionError

        monkeypatch.setattr(Exporter, "housekeep", fails_twice)
        export_id = await exports.request()
        running = asyncio.create_task(
            run_exports(
                config=exports.config,
                event_store=EventStoreConfig(dsn=clickhouse_dsn),
                sessions=exports.sessions,
                stop=stop,
                clock=clock_at(NOON),
            )
        )
        try:
            await exports.until_done(export_id)
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)
