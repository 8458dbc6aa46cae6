"""Writes a file for each day that is over and sealed, and anew where hours of it were sealed again.

A directory of a sink holds `2026-11-23.r1.parquet` and so on, and `manifest.json`, which names the newest file of
each day with its SHA-256. Files and manifest appear whole or not at all; older revisions are deleted once the
manifest names the newer.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_day, from_ms
from control_plane.usage.daily.rows import hours_kept_from
from control_plane.usage.requests.exports.files import CountedFile, writer_of
from control_plane.usage.requests.exports.model import ExportConfig, ExportKind, ExportWish
from control_plane.usage.requests.exports.sources import event_pieces, rollup_pieces
from control_plane.usage.requests.model import EventSpan
from control_plane.usage.retention import countable_from_ms
from control_plane.usage.sinks.model import SinkContent, SinksConfig
from control_plane.usage.sinks.tables import Sink, SinkDay
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_reads import FileFormat

DAY = timedelta(days=1)
MANIFEST = "manifest.json"
_ANY_NUMBER = 2**53
log = structlog.get_logger(__name__)

# A day is due when it is over, none of its hours is open, and its seals are not those of the file that is there.
_DUE = text("""
SELECT sinks.id AS sink_id, days.day, days.fingerprint, coalesce(written.revision, 0) AS revision
FROM sinks CROSS JOIN LATERAL (
    SELECT date_trunc('day', hour, 'UTC') AS day,
        md5(string_agg(
            account_id || ' ' || extract(epoch FROM hour) || ' ' || revision, ',' ORDER BY account_id, hour
        )) AS fingerprint,
        bool_and(sealed_at IS NOT NULL) AS is_sealed
    FROM usage_hours
    WHERE hour >= greatest(date_trunc('day', sinks.since, 'UTC'), CAST(
            CASE sinks.content WHEN 'events' THEN :events_from ELSE :rollups_from END AS timestamptz))
        AND hour < CAST(:until_day AS timestamptz)
    GROUP BY 1
) AS days
LEFT JOIN sink_days AS written ON written.sink_id = sinks.id AND written.day = days.day
WHERE sinks.kind = 'files' AND sinks.removed_at IS NULL AND sinks.paused_at IS NULL AND sinks.due_at <= :now
    AND days.is_sealed AND written.fingerprint IS DISTINCT FROM days.fingerprint
ORDER BY days.day, sinks.id
LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class DueDay:
    """A day whose file must be written, under the seals that `fingerprint` stands for."""

    sink_id: str
    day: datetime
    fingerprint: str
    revision: int


class DayFiles:
    """Writes files of days, one at a time. One process of an installation runs it (see `lock`)."""

    def __init__(
        self, *, config: SinksConfig, sessions: async_sessionmaker[AsyncSession], store: EventStore
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._store = store
        self._files = ExportConfig(
            directory=config.directory, max_rows=_ANY_NUMBER, max_bytes=_ANY_NUMBER, max_waiting=1
        )

    async def due_day(self, now: datetime, *, look_back: timedelta) -> DueDay | None:
        """Return a day that must be written, the oldest first.

        Days further back than `look_back` stand, and so do those of which something may be gone by now: a file
        that was written while it was there says more.
        """
        from_day = floor_day(now - look_back)
        async with self._sessions() as session:
            limits = {
                "now": now,
                "events_from": max(from_day, _next_day(from_ms(countable_from_ms(now)))),
                "rollups_from": max(from_day, await hours_kept_from(session) or from_day),
                "until_day": floor_day(now - self._config.after_its_end),
            }
            row = (await session.execute(_DUE, limits)).one_or_none()
        return None if row is None else DueDay(row.sink_id, row.day, row.fingerprint, row.revision + 1)

    async def write(self, due: DueDay, *, now: datetime) -> SinkDay:
        """Write a day's file, enter it, and name it in the manifest.

        Raises:
            OSError: the directory cannot be written, or the disk is nearly full.
            ExportRefusedError, QueryTooLargeError: see there.
        """
        async with self._sessions() as session:
            sink = await session.get_one(Sink, due.sink_id)
        directory = self._config.directory / sink.name
        file_format = FileFormat(sink.file_format or "")
        name = f"{due.day:%Y-%m-%d}.r{due.revision}.{file_format.value}"
        unfinished = directory / f".{name}.part"
        rows, file = await self._write_file(sink, due, unfinished, file_format)
        await asyncio.to_thread(os.replace, unfinished, directory / name)
        written = SinkDay(
            sink_id=due.sink_id,
            day=due.day,
            revision=due.revision,
            fingerprint=due.fingerprint,
            file_name=name,
            records=rows,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            written_at=now,
        )
        await self._enter(written)
        await self._publish(sink, directory)
        log.info("wrote a day's file", sink=sink.name, file=name, records=rows)
        return written

    async def _write_file(
        self, sink: Sink, due: DueDay, path: Path, file_format: FileFormat
    ) -> tuple[int, "_Finished"]:
        kind = ExportKind.EVENTS if sink.content == SinkContent.EVENTS else ExportKind.ROLLUPS
        span = EventSpan(account_id=None, start=max(due.day, sink.since), end=due.day + DAY)
        wish = ExportWish(kind=kind, file_format=file_format, span=span)
        rows = 0
        with CountedFile(path, self._files) as file:
            writer = writer_of(file_format, file)
            async with aclosing(self._pieces(wish)) as pieces:
                async for piece in pieces:
                    rows += await asyncio.to_thread(writer.add, piece)
            await asyncio.to_thread(writer.finish)
            sha256 = await asyncio.to_thread(file.complete)
            return rows, _Finished(file.size_bytes, sha256)

    def _pieces(self, wish: ExportWish) -> AsyncGenerator[bytes]:
        async def counted(_: int) -> None:
            """Nobody waits for the count."""

        if wish.kind is ExportKind.EVENTS:
            return event_pieces(self._store, wish, config=self._files, counted=counted)
        return rollup_pieces(self._sessions, self._store, wish, config=self._files, counted=counted)

    async def _enter(self, written: SinkDay) -> None:
        values = {column.name: getattr(written, column.name) for column in SinkDay.__table__.columns}
        async with self._sessions() as session, session.begin():
            await session.execute(
                insert(SinkDay)
                .values(values)
                .on_conflict_do_update(index_elements=[SinkDay.sink_id, SinkDay.day], set_=values)
            )
            sink = await session.get_one(Sink, written.sink_id, with_for_update=True)
            sink.last_sent_at, sink.attempts, sink.last_error, sink.last_error_at = (
                written.written_at,
                0,
                None,
                None,
            )

    async def _publish(self, sink: Sink, directory: Path) -> None:
        async with self._sessions() as session:
            statement = select(SinkDay).where(SinkDay.sink_id == sink.id).order_by(SinkDay.day)
            days = list(await session.scalars(statement))
        await asyncio.to_thread(_write_manifest, sink, days, directory)


def _next_day(moment: datetime) -> datetime:
    """Return the first day that begins at a moment or later."""
    day = floor_day(moment)
    return day if day == moment else day + DAY


@dataclass(frozen=True, slots=True)
class _Finished:
    size_bytes: int
    sha256: str


def _write_manifest(sink: Sink, days: list[SinkDay], directory: Path) -> None:
    """Name the newest files, then delete those of these days that are no longer named."""
    manifest = {
        "sink": sink.name,
        "content": sink.content,
        "format": sink.file_format,
        "days": [_entry(day) for day in days],
    }
    unfinished = directory / f".{MANIFEST}.part"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(directory / MANIFEST)
    named = {day.file_name for day in days}
    for day in days:
        for path in directory.glob(f"{day.day:%Y-%m-%d}.r*"):
            if path.name not in named:
                path.unlink(missing_ok=True)


def _entry(day: SinkDay) -> dict[str, Any]:
    return {
        "day": f"{day.day:%Y-%m-%d}",
        "file": day.file_name,
        "revision": day.revision,
        "records": day.records,
        "size_bytes": day.size_bytes,
        "sha256": day.sha256,
    }
