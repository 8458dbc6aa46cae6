"""Reads events: pages, counts by slices of time, and files. Blocking: the caller runs it in a thread."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

from clickhouse_connect.driver.exceptions import Error as ClickHouseError

from control_plane.usage.requests.model import EventFilters, EventSpan
from control_plane.usage.store.events import EventStore
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import UsageEvent

_PACKAGE = resources.files("control_plane.usage.store")
_SEARCH = (_PACKAGE / "event_search.sql").read_text(encoding="utf-8")
_COUNTS = (_PACKAGE / "event_counts.sql").read_text(encoding="utf-8")
_EXPORT = (_PACKAGE / "event_export.sql").read_text(encoding="utf-8")
_CELL = re.compile(r"\{(text|json):(\w+)\}")
_COLUMNS = (
    "event_id", "request_id", "occurred_at_ms", "account_id", "key_id", "mode", "product", "service", "route",
    "endpoint", "method", "path", "status", "outcome", "units", "dimensions", "bytes_in", "bytes_out",
    "latency_ms", "gateway_ms", "upstream_ms", "client_ip", "emitter", "call_number", "flags", "shipper",
    "subscription_id", "plan", "source", "event_type", "properties",
)  # fmt: skip
_EQUAL = ("mode", "product", "key_id", "endpoint", "outcome")
_IDS = ("request_id", "event_id")
_TIMEOUT_EXCEEDED, _MEMORY_LIMIT_EXCEEDED = 159, 241
# a Parquet piece is one row group, and holds no index with offsets of its own: pieces are put one after another
_FILE_SETTINGS = {
    "date_time_output_format": "iso",
    "output_format_parquet_row_group_size": 10_000_000,
    "output_format_parquet_row_group_size_bytes": 2**31,
    "output_format_parquet_write_page_index": 0,
    "output_format_parquet_write_bloom_filter": 0,
    "output_format_json_quote_64bit_integers": 0,
}


class FileFormat(StrEnum):
    """What files are written as. `csv` is for spreadsheets too: no cell of it is taken for a formula there."""

    CSV = "csv"
    PARQUET = "parquet"


class QueryTooLargeError(Exception):
    """The store gave up: the query took more time or memory than its client may use."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list of events goes on: behind this one."""

    occurred_at_ms: int
    event_id: str
    account_id: str


def search_events(
    store: EventStore,
    span: EventSpan,
    filters: EventFilters,
    *,
    newest_first: bool = True,
    after: Place | None = None,
    limit: int,
) -> list[UsageEvent]:
    """Return at most `limit` events, each once, in the order of time and id.

    Raises:
        QueryTooLargeError: see there.
    """
    conditions, parameters = _conditions(span, filters)
    if after is not None:
        conditions.append(
            f"(event.occurred_at, event.event_id, event.account_id) {'<' if newest_first else '>'}"
            " (fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC'), {after_id:String}, {after_account:String})"
        )
        parameters |= {
            "after_ms": after.occurred_at_ms,
            "after_id": after.event_id,
            "after_account": after.account_id,
        }
    statement = _filled(_SEARCH, conditions).replace("{direction}", "DESC" if newest_first else "ASC")
    rows = _query(store, statement, parameters | {"page_size": limit})
    return [_event(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def count_slices(
    store: EventStore, span: EventSpan, filters: EventFilters, *, slice_ms: int
) -> list[tuple[int, int]]:
    """Return (start in ms, events) of each slice of time that has any, in order.

    Raises:
        QueryTooLargeError: see there.
    """
    conditions, parameters = _conditions(span, filters)
    rows = _query(store, _filled(_COUNTS, conditions), parameters | {"slice_ms": slice_ms})
    return [(int(start), int(count)) for start, count in rows]


def export_events(
    store: EventStore,
    span: EventSpan,
    filters: EventFilters,
    *,
    file_format: FileFormat,
    with_names: bool,
) -> bytes:
    """Return the events as CSV (with a line of names or without) or as a whole Parquet file of one row group.

    All of it is in memory once: ask for spans of some hundred thousand events.

    Raises:
        QueryTooLargeError: see there.
    """
    conditions, parameters = _conditions(span, filters)
    statement = _CELL.sub(lambda found: _cell(found[1], found[2], file_format), _filled(_EXPORT, conditions))
    return write_rows(store, statement, parameters, file_format=file_format, with_names=with_names)


def write_rows(
    store: EventStore,
    statement: str,
    parameters: Mapping[str, Any],
    *,
    file_format: FileFormat,
    with_names: bool,
    settings: Mapping[str, Any] | None = None,
) -> bytes:
    """Return what a statement selects as a file.

    Raises:
        QueryTooLargeError: see there.
    """
    names = {FileFormat.CSV: "CSVWithNames" if with_names else "CSV", FileFormat.PARQUET: "Parquet"}
    with _too_large_named():
        return store.raw(
            statement, parameters, fmt=names[file_format], settings={**_FILE_SETTINGS, **(settings or {})}
        )


def cell_text(name: str) -> str:
    """Return the expression of a text column in CSV: one line, and nothing that a spreadsheet takes for a formula.

    Control characters become spaces, and `'` stands before `= + - @`.
    """
    plain = rf"replaceRegexpAll({name}, '[\\x00-\\x1f]', ' ')"
    return rf"if(match({plain}, '^ *[=+\\-@]'), concat('\'', {plain}), {plain})"


def _cell(kind: str, name: str, file_format: FileFormat) -> str:
    if file_format is FileFormat.PARQUET:
        return name
    # another name inside, or conditions on the column would be on the cell
    expression = cell_text(f"event.{name}") if kind == "text" else f"toJSONString(event.{name})"
    return f"{expression} AS `{name}`"


def _conditions(span: EventSpan, filters: EventFilters) -> tuple[list[str], dict[str, Any]]:
    """Return only the conditions that are asked for: a constant one would hide the key from the index."""
    conditions = [
        "hour >= toStartOfHour(fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC'))",
        "hour <= toStartOfHour(fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC'))",
        "occurred_at >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')",
        "occurred_at < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')",
    ]
    parameters: dict[str, Any] = {"start_ms": span.start_ms, "end_ms": span.end_ms}
    if span.account_id is not None:
        conditions.insert(0, "event.account_id = {account_id:String}")
        parameters["account_id"] = span.account_id
    named = []
    for name in _IDS:
        if wanted := getattr(filters, name):
            named.append(f"event.{name} = {{{name}:String}}")
            parameters[name] = wanted
        if several := getattr(filters, f"{name}s"):
            named.append(f"event.{name} IN {{{name}s:Array(String)}}")
            parameters[f"{name}s"] = list(several)
    if named:
        # Few events: where they are is looked up first, by two columns; `FINAL` would open every column of every
        # part. Any version of an event tells its place, and `FINAL` still says which version stays.
        conditions += [_place_among([*conditions, *named]), *named]
    for name in _EQUAL:
        if wanted := getattr(filters, name):
            conditions.append(f"event.{name} = {{{name}:String}}")
            parameters[name] = wanted
    if (filters.lowest_status, filters.highest_status) != (0, EventFilters().highest_status):
        conditions.append("status BETWEEN {lowest_status:UInt16} AND {highest_status:UInt16}")
        parameters |= {"lowest_status": filters.lowest_status, "highest_status": filters.highest_status}
    return conditions, parameters


def _place_among(conditions: Sequence[str]) -> str:
    where = " AND ".join(conditions)
    places = f"SELECT account_id, hour, event_id FROM usage_events AS event WHERE {where}"  # noqa: S608 - no input
    return f"(event.account_id, event.hour, event.event_id) IN ({places})"


def _filled(statement: str, conditions: Sequence[str]) -> str:
    return statement.replace("{conditions}", "\n    AND ".join(conditions))


def _query(store: EventStore, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    with _too_large_named():
        return store.query(statement, parameters)


@contextmanager
def _too_large_named() -> Iterator[None]:
    try:
        yield
    except ClickHouseError as error:
        if getattr(error, "code", None) in {_TIMEOUT_EXCEEDED, _MEMORY_LIMIT_EXCEEDED}:
            raise QueryTooLargeError(str(error)) from error
        raise


def _event(row: dict[str, Any]) -> UsageEvent:
    values = row | {
        "mode": Mode(row["mode"]),
        "outcome": Outcome(row["outcome"]),
        "flags": tuple(row["flags"]),
        "dimensions": dict(row["dimensions"]),
        "properties": dict(row["properties"]),
    }
    return UsageEvent(**values)
