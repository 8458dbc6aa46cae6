"""Where the rows of an export come from, piece by piece: events from the store, rollups from PostgreSQL."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, Select, func, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms
from control_plane.foundation.db import UtcDateTime
from control_plane.usage.model import MAX_STATUS
from control_plane.usage.requests.exports.model import ExportConfig, ExportRefusedError, ExportWish, tiles
from control_plane.usage.requests.model import EventSpan
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_reads import FileFormat, cell_text, count_slices, export_events, write_rows
from control_plane.usage.tables import UsageHourly

# told how many rows were counted so far
Counted = Callable[[int], Awaitable[None]]
DAY = timedelta(days=1)
SLICES_MS = (3_600_000, 60_000, 1_000)
ROLLUPS_AT_ONCE = 5_000
_STATEMENT_BYTES = 64 * 1024**2
_ROLLUP_TABLE = UsageHourly.__table__
_ROLLUP_KEY = tuple(_ROLLUP_TABLE.primary_key)
_ROLLUP_COLUMNS = (*_ROLLUP_KEY, *(column for column in _ROLLUP_TABLE.columns if not column.primary_key))


async def event_pieces(
    store: EventStore, wish: ExportWish, *, config: ExportConfig, counted: Counted
) -> AsyncGenerator[bytes]:
    """Yield files of events, oldest first, each event once.

    Counts them first, a day at a time, and tells `counted` the sum so far (awaited). What arrives meanwhile is in
    it where its part of the span is not read yet.

    Raises:
        ExportRefusedError: there are more rows than allowed.
        QueryTooLargeError: a day cannot be counted, or a part read, within the limits.
    """
    slices: list[tuple[int, int]] = []
    total = 0
    for day in _days(wish.span):
        found = await asyncio.to_thread(_slices, store, day, wish, config.piece_rows, SLICES_MS)
        slices += found
        total += sum(count for _, count in found)
        check_rows(total, config)
        await counted(total)
    with_names = True
    for part in tiles(wish.span, slices, most=config.piece_rows):
        yield await asyncio.to_thread(
            export_events, store, part, wish.filters, file_format=wish.file_format, with_names=with_names
        )
        with_names = False


async def rollup_pieces(
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    wish: ExportWish,
    *,
    config: ExportConfig,
    counted: Counted,
) -> AsyncGenerator[bytes]:
    """Yield files of rollup rows by account and hour, all as of one moment.

    Raises:
        ExportRefusedError: there are more rows than allowed.
    """
    async with sessions() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        total = await session.scalar(_wanted(select(func.count()).select_from(UsageHourly), wish)) or 0
        check_rows(total, config)
        await counted(total)
        statement = _wanted(select(_ROLLUP_TABLE), wish).order_by(*_ROLLUP_KEY).limit(ROLLUPS_AT_ONCE)
        after: tuple[Any, ...] | None = None
        while True:
            page = statement if after is None else statement.where(tuple_(*_ROLLUP_KEY) > after)
            rows = (await session.execute(page)).all()
            if rows or after is None:
                yield await asyncio.to_thread(
                    rollup_file, store, rows, file_format=wish.file_format, with_names=after is None
                )
            if len(rows) < ROLLUPS_AT_ONCE:
                return
            after = tuple(getattr(rows[-1], column.name) for column in _ROLLUP_KEY)


def rollup_file(store: EventStore, rows: Sequence[Any], *, file_format: FileFormat, with_names: bool) -> bytes:
    """Return rollup rows as a file: ClickHouse writes it, so that types are those of the events' files."""
    lines = "\n".join(
        json.dumps(dict(row._mapping), default=_plain, ensure_ascii=False)  # noqa: SLF001 - SQLAlchemy's public name
        for row in rows
    )
    # nothing inside can end the text: nobody knows the mark beforehand
    mark = f"$rows{secrets.token_hex(16)}$"
    structure = ", ".join(f"{column.name} {_type(column.type)}" for column in _ROLLUP_COLUMNS)
    cells = ", ".join(_cell(column, file_format) for column in _ROLLUP_COLUMNS)
    source = "FROM format(JSONEachRow, " + f"{mark}{structure}{mark}, {mark}{lines}{mark}) AS source"
    return write_rows(
        store,
        f"SELECT {cells} {source}",
        {},
        file_format=file_format,
        with_names=with_names,
        settings={"max_query_size": _STATEMENT_BYTES, "date_time_input_format": "best_effort"},
    )


def check_rows(total: int, config: ExportConfig) -> None:
    """Raises ExportRefusedError where there are more rows than allowed."""
    if total > config.max_rows:
        raise ExportRefusedError(
            f"There are more than {config.max_rows:,} rows: take a shorter span, an account or other filters."
        )


def _slices(
    store: EventStore, span: EventSpan, wish: ExportWish, most: int, lengths_ms: Sequence[int]
) -> list[tuple[int, int]]:
    """Return slices of time with their rows; those with too many are cut finer, down to a second."""
    length_ms, *finer = lengths_ms
    found: list[tuple[int, int]] = []
    for start_ms, count in count_slices(store, span, wish.filters, slice_ms=length_ms):
        if count > most and finer:
            found += _slices(store, _cut(span, start_ms, length_ms), wish, most, finer)
        else:
            found.append((start_ms, count))
    return found


def _cut(span: EventSpan, start_ms: int, length_ms: int) -> EventSpan:
    start, end = from_ms(start_ms), from_ms(start_ms + length_ms)
    return EventSpan(account_id=span.account_id, start=max(start, span.start), end=min(end, span.end))


def _days(span: EventSpan) -> list[EventSpan]:
    days = []
    start = span.start
    while start < span.end:
        end = min(span.end, start.replace(hour=0, minute=0, second=0, microsecond=0) + DAY)
        days.append(EventSpan(account_id=span.account_id, start=start, end=end))
        start = end
    return days


def _wanted(statement: Select[Any], wish: ExportWish) -> Select[Any]:
    filters = wish.filters
    statement = statement.where(UsageHourly.hour >= wish.span.start, UsageHourly.hour < wish.span.end)
    if wish.span.account_id is not None:
        statement = statement.where(UsageHourly.account_id == wish.span.account_id)
    for column, value in (
        (UsageHourly.product, filters.product),
        (UsageHourly.key_id, filters.key_id),
        (UsageHourly.mode, filters.mode),
        (UsageHourly.endpoint, filters.endpoint),
        (UsageHourly.outcome, filters.outcome),
    ):
        if value:
            statement = statement.where(column == value)
    if (filters.lowest_status, filters.highest_status) != (0, MAX_STATUS):
        statement = statement.where(UsageHourly.status.between(filters.lowest_status, filters.highest_status))
    return statement


def _type(kind: Any) -> str:
    """Return ClickHouse's type for a column of the rollup."""
    if isinstance(kind, UtcDateTime):
        return "DateTime('UTC')"
    if isinstance(kind, JSONB):
        return "Map(String, Int64)"
    if isinstance(kind, Boolean):
        return "Bool"
    return "Int64" if isinstance(kind, Integer | BigInteger) else "String"


def _cell(column: Any, file_format: FileFormat) -> str:
    kind = _type(column.type)
    if file_format is FileFormat.PARQUET or kind not in {"String", "Map(String, Int64)"}:
        return str(column.name)
    source = f"source.{column.name}"
    return f"{cell_text(source) if kind == 'String' else f'toJSONString({source})'} AS {column.name}"


def _plain(value: Any) -> str:
    assert isinstance(value, datetime)  # noqa: S101 - everything else in a row is JSON already
    return value.isoformat()
