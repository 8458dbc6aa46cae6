"""Does export jobs, one at a time, until told to stop."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.requests.exports.files import CountedFile, writer_of
from control_plane.usage.requests.exports.model import ExportConfig, ExportKind, ExportRefusedError
from control_plane.usage.requests.exports.queries import file_name, wish_of
from control_plane.usage.requests.exports.queue import ExportQueue, LostJobError, WrittenFile
from control_plane.usage.requests.exports.sources import event_pieces, rollup_pieces
from control_plane.usage.requests.exports.tables import ExportJob
from control_plane.usage.store import EventStore, EventStoreConfig

EXPORTS = Counter("km_usage_exports_total", "Export jobs that ended.", ["status"])
EXPORTED_ROWS = Counter("km_usage_exported_rows_total", "Rows written into exports.")
_NAME = re.compile(r"(exp_[0-9a-z]{26})\.\d+\.(csv|parquet)")

log = structlog.get_logger(__name__)


class _StoppedError(Exception):
    """The process is going down."""


class Exporter:
    """One worker with its own client of the event store."""

    def __init__(
        self,
        *,
        config: ExportConfig,
        sessions: async_sessionmaker[AsyncSession],
        store: EventStore,
        stop: asyncio.Event,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._store = store
        self._stop = stop
        self._clock = clock
        self._queue = ExportQueue(sessions, config)

    async def housekeep(self) -> None:
        """Let exports end whose time is over, and delete files that belong to no job."""
        for export_id in await self._queue.expire(self._clock()):
            log.info("an export has expired", export_id=export_id)
        # named before they are looked up: a file that is made after this is not among them
        names = {
            path.name: found[1]
            for path in (self._config.directory.iterdir() if self._config.directory.is_dir() else ())
            if (found := _NAME.fullmatch(path.name))
        }
        wanted = await self._queue.wanted_files(list(names.values())) if names else set()
        for name in names.keys() - wanted:
            (self._config.directory / name).unlink(missing_ok=True)

    async def work(self) -> bool:
        """Do one job, if there is one; says whether there was."""
        job = await self._queue.claim(self._clock())
        if job is None:
            return False
        try:
            await self._do(job)
        except LostJobError:
            EXPORTS.labels("lost").inc()
            log.warning("an export was cancelled or taken over", export_id=job.id, attempt=job.attempt)
        except BaseException:
            (self._config.directory / file_name(job)).unlink(missing_ok=True)
            raise
        return True

    async def _do(self, job: ExportJob) -> None:
        try:
            written = await self._write(job)
            await self._queue.finish(job, written, now=self._clock())
        except LostJobError:
            (self._config.directory / file_name(job)).unlink(missing_ok=True)
            raise
        except _StoppedError:
            await self._queue.give_back(job, now=self._clock(), pause=timedelta(0))
        except ExportRefusedError as error:
            await self._fail(job, str(error))
        except Exception:
            if job.attempt >= self._config.attempts:
                await self._fail(job, f"Given up after {job.attempt} attempts; the server's log says why.")
            else:
                pause = timedelta(seconds=self._config.retry_seconds * job.attempt)
                await self._queue.give_back(job, now=self._clock(), pause=pause)
            raise
        else:
            EXPORTS.labels("done").inc()
            log.info("an export is done", export_id=job.id, rows=written.rows, size_bytes=written.size_bytes)

    async def _fail(self, job: ExportJob, error: str) -> None:
        await self._queue.fail(job, error, now=self._clock())
        (self._config.directory / file_name(job)).unlink(missing_ok=True)
        EXPORTS.labels("failed").inc()
        log.warning("an export failed", export_id=job.id, error=error)

    async def _write(self, job: ExportJob) -> WrittenFile:
        wish = wish_of(job)
        rows = 0
        total = 0

        async def tell() -> None:
            if self._stop.is_set():
                raise _StoppedError
            await self._queue.keep(
                job, done_rows=rows, size_bytes=file.size_bytes, total_rows=total, now=self._clock()
            )

        async def counted(so_far: int) -> None:
            nonlocal total
            total = so_far
            await tell()

        with CountedFile(self._config.directory / file_name(job), self._config) as file:
            writer = writer_of(wish.file_format, file)
            pieces: AsyncGenerator[bytes]
            if wish.kind is ExportKind.EVENTS:
                pieces = event_pieces(self._store, wish, config=self._config, counted=counted)
            else:
                pieces = rollup_pieces(self._sessions, self._store, wish, config=self._config, counted=counted)
            async with aclosing(pieces):
                async for piece in pieces:
                    added = await asyncio.to_thread(writer.add, piece)
                    rows += added
                    EXPORTED_ROWS.inc(added)
                    await tell()
            await asyncio.to_thread(writer.finish)
            sha256 = await asyncio.to_thread(file.complete)
            return WrittenFile(rows, file.size_bytes, sha256)


async def run_exports(
    *,
    config: ExportConfig,
    event_store: EventStoreConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Do export jobs until `stop`. Failures are counted and logged; the job is tried again, later, by anybody.

    Any number of processes may run this. A job in hand at `stop` goes back to the queue.
    """
    limited = replace(event_store, query_memory_mb=min(event_store.query_memory_mb, config.query_memory_mb))
    store: EventStore | None = None

    async def one_round() -> float:
        nonlocal store
        if store is None:
            store = await asyncio.to_thread(EventStore.open, limited, max_threads=1)
            store.limit(seconds=config.query_seconds)
        try:
            exporter = Exporter(config=config, sessions=sessions, store=store, stop=stop, clock=clock)
            await exporter.housekeep()
            return 0 if await exporter.work() else config.pause_seconds
        except Exception:
            broken, store = store, None
            await asyncio.to_thread(broken.close)
            raise

    try:
        await repeat("exporter", one_round, stop=stop, failures=metrics.FAILURES.labels("exporter", "export"))
    finally:
        if store is not None:
            await asyncio.to_thread(store.close)
