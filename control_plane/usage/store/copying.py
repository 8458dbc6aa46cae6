"""Copies an event store into another: from the embedded one to a server, mostly. Blocking.

Day by day. A day is done when both stores count the same rows in it and their checksums agree, so a copy that was
broken off goes on where it was, and one that is made again copies nothing. Rows replace themselves by what names
them, so a piece that arrives twice is there once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ProgrammingError

from control_plane.foundation.clock import EPOCH, to_ms
from control_plane.usage.store.client import EventStoreConfig, connect, migrate, migration_steps, steps_done
from control_plane.usage.store.events import INSERT_SETTINGS

ROWS_AT_ONCE = 250_000
# rows that go within this time may be gone from one store already when the two are compared
COMPARED_BEFORE_EXPIRY = timedelta(hours=12)
# a day's checksum reads all of it
QUERY_MEMORY_MB = 4096


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table, by SQL: which time a row belongs to, when it goes, and what spreads the rows of an hour."""

    name: str
    at: str
    expires: str
    spread_by: str


TABLES = (
    CopiedTable("usage_events", "hour", "toStartOfDay(hour) + toIntervalDay(retention_days + 1)", "event_id"),
    CopiedTable(
        "usage_dead_letters",
        "received_at",
        "toDateTime(toStartOfMonth(received_at), 'UTC') + toIntervalMonth(13)",
        "(shipper_id, segment, start_offset, number)",
    ),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """`copied` of `rows` that were missing; `day` is the one at hand."""

    table: str
    day: date
    copied: int
    rows: int


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What both stores hold now, and how many days had to be copied."""

    events: int
    dead_letters: int
    days: int
    days_copied: int


class CopyError(Exception):
    """The copy cannot be made, or is not what it should be; the message is for the operator."""


Days = Mapping[date, tuple[int, int]]
"""Rows and checksum by day."""


def copy_store(
    source_config: EventStoreConfig,
    target_config: EventStoreConfig,
    *,
    now: datetime,
    before: date | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
) -> CopyReport:
    """Copy every day (or those before one), compare, and say what is there.

    Both stores are brought to the newest form first. Nothing may be written to the days that are copied meanwhile.

    Raises:
        CopyError: a store cannot be copied from or to; or the two differ in the end, each day being named.
        clickhouse_connect.driver.exceptions.Error: a store failed; to be called again.
    """
    if source_config.dsn == target_config.dsn:
        raise CopyError("the two stores are the same")
    _require_store(source_config)
    source, target = _open(source_config, "source"), None
    try:
        target = _open(target_config, "target")
        copies = [_Copy(source, target, table, now, before) for table in TABLES]
        missing = sum(copy.rows_missing for copy in copies)
        done = 0
        for copy in copies:
            for day in copy.days_missing:
                for rows in copy.pieces(day):
                    done += rows
                    tell(Progress(copy.table.name, day, done, missing))
        different = [text for copy in copies for text in copy.differences()]
        if different:
            raise CopyError(
                "\n".join(["the copy differs; is anything still writing to one of the two?", *different])
            )
        events, letters = (sum(rows for rows, _ in copy.there.values()) for copy in copies)
        return CopyReport(
            events,
            letters,
            days=sum(len(copy.there) for copy in copies),
            days_copied=sum(len(copy.days_missing) for copy in copies),
        )
    finally:
        source.close()
        if target is not None:
            target.close()


class _Copy:
    def __init__(
        self, source: Client, target: Client, table: CopiedTable, now: datetime, before: date | None
    ) -> None:
        self.table = table
        self._source = source
        self._target = target
        self._now = now
        self._columns = _columns(source, table.name)
        self._end = datetime.combine(before, time(), tzinfo=UTC) if before else now + timedelta(days=36_500)
        self.there = self._digests(source)
        here = self._digests(target)
        self.days_missing = [day for day in sorted(self.there) if self.there[day] != here.get(day)]
        self.rows_missing = sum(self.there[day][0] for day in self.days_missing)

    def pieces(self, day: date) -> Iterator[int]:
        """Copy a day and yield the number of rows of each piece."""
        start = datetime.combine(day, time(), tzinfo=UTC)
        hours = self._source.query(
            f"SELECT toUnixTimestamp(toStartOfHour({self.table.at})) AS start, count()"  # noqa: S608 - names of ours
            f" FROM {self.table.name} FINAL WHERE {self._wanted()} GROUP BY start ORDER BY start",
            parameters=_span(start, start + timedelta(days=1)),
        )
        for first, last, rows in _grouped(hours.result_rows):
            parts = -(-rows // ROWS_AT_ONCE)
            for part in range(parts):
                self._copy_piece(_span(first, last + timedelta(hours=1)), part=part, parts=parts)
                yield rows * (part + 1) // parts - rows * part // parts

    def _copy_piece(self, span: Mapping[str, Any], *, part: int, parts: int) -> None:
        rows = self._source.raw_query(
            f"SELECT {', '.join(self._columns)} FROM {self.table.name} FINAL WHERE {self._wanted()}"  # noqa: S608
            f" AND cityHash64({self.table.spread_by}) % {parts} = {part}",
            parameters=dict(span),
            fmt="Native",
        )
        if rows:
            self._target.raw_insert(
                self.table.name, self._columns, insert_block=rows, fmt="Native", settings=INSERT_SETTINGS
            )

    def differences(self) -> list[str]:
        """Compare all days and say which differ."""
        here = self._digests(self._target)
        return [
            f"{self.table.name} of {day}: {rows} rows, the copy has {here.get(day, (0, 0))[0]}"
            for day, (rows, checksum) in sorted(self.there.items())
            if here.get(day) != (rows, checksum)
        ]

    def _digests(self, client: Client) -> Days:
        found = client.query(
            f"SELECT toDate({self.table.at}) AS day, count(), sum(cityHash64({', '.join(self._columns)}))"  # noqa: S608
            f" FROM {self.table.name} FINAL WHERE {self._wanted(for_longer=COMPARED_BEFORE_EXPIRY)} GROUP BY day",
            parameters=_span(EPOCH, self._end),
        )
        return {day: (int(rows), int(checksum)) for day, rows, checksum in found.result_rows}

    def _wanted(self, *, for_longer: timedelta = timedelta(0)) -> str:
        stays_ms = to_ms(self._now + for_longer)
        return (
            f"{self.table.at} >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')"
            f" AND {self.table.at} < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC')"
            f" AND {self.table.expires} > fromUnixTimestamp64Milli({stays_ms}, 'UTC')"
        )


def _grouped(hours: Iterable[Sequence[int]]) -> Iterator[tuple[datetime, datetime, int]]:
    """Join hours (start in seconds, rows) to pieces: (first hour, last hour, rows)."""
    group: list[Sequence[int]] = []
    for hour in hours:
        if group and sum(rows for _, rows in group) + hour[1] > ROWS_AT_ONCE:
            yield _group(group)
            group = []
        group.append(hour)
    if group:
        yield _group(group)


def _group(hours: Sequence[Sequence[int]]) -> tuple[datetime, datetime, int]:
    first, last = (datetime.fromtimestamp(hours[index][0], UTC) for index in (0, -1))
    return first, last, sum(rows for _, rows in hours)


def _span(start: datetime, end: datetime) -> dict[str, Any]:
    return {"start_ms": to_ms(start), "end_ms": to_ms(end)}


def _require_store(config: EventStoreConfig) -> None:
    """An embedded store that is not there would be made, and be empty."""
    directory = Path(unquote(urlsplit(config.dsn).path))
    if config.is_embedded and not (directory.is_dir() and any(directory.iterdir())):
        raise CopyError(f"{directory}: there is no event store")


def _open(config: EventStoreConfig, role: str) -> Client:
    try:
        client = connect(replace(config, query_memory_mb=QUERY_MEMORY_MB))
    except ProgrammingError as error:
        if config.is_embedded:
            raise CopyError(f"the {role} cannot be opened; is `km serve` still running? ({error})") from error
        raise
    try:
        migrate(client, config.layout)
        newer = steps_done(client) - {number for number, _, _ in migration_steps()}
    except BaseException:
        client.close()
        raise
    if newer:
        client.close()
        raise CopyError(f"the {role} is of a newer version of this program (step {max(newer)})")
    return client


def _columns(client: Client, table: str) -> list[str]:
    """Return the names of the columns that rows come with; the others are made of these."""
    found = client.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
        " AND default_kind NOT IN ('MATERIALIZED', 'ALIAS', 'EPHEMERAL') ORDER BY position",
        parameters={"table": table},
    )
    return [str(row[0]) for row in found.result_rows]
