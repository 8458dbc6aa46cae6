"""Rows of `usage_events` on their way into the store."""

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.usage.store.native_block import NativeBlock

_COLUMN_TYPES = {
    "occurred_at": "DateTime64(3, 'UTC')",
    "ingested_at": "DateTime64(3, 'UTC')",
    "status": "UInt16",
    "units": "UInt64",
    "dimensions": "Map(LowCardinality(String), UInt64)",
    "bytes_in": "UInt64",
    "bytes_out": "UInt64",
    "latency_ms": "UInt32",
    "gateway_ms": "UInt32",
    "upstream_ms": "Int32",
    "call_number": "UInt64",
    "flags": "Array(LowCardinality(String))",
    "event_id": "String",
    "request_id": "String",
    "path": "String",
    "client_ip": "String",
    "retention_days": "UInt16",
    "properties": "Map(LowCardinality(String), String)",
}
_OTHER_COLUMN_TYPE = "LowCardinality(String)"


class UnstorableRowError(Exception):
    """Rows that no column type can hold; none of them was taken."""


class EventBlock:
    """Events to be stored together; the first ones decide which columns they have."""

    def __init__(self) -> None:
        self._block: NativeBlock | None = None

    def __len__(self) -> int:
        return 0 if self._block is None else len(self._block)

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add events by column (see `collect.columns`): all of them or, where an error is raised, none.

        Raises:
            UnstorableRowError: a value fits no column.
        """
        block = _block_of(columns) if self._block is None else self._block
        try:
            block.add(columns)
        except ValueError as error:
            raise UnstorableRowError(str(error)) from error
        self._block = block

    def body(self, more: Mapping[str, Sequence[Any]]) -> tuple[list[str], bytes]:
        """Return names of columns and the block in the Native format, with more columns for the same events.

        Raises:
            UnstorableRowError: a value fits no column.
        """
        block = self._block or _block_of({})
        if not more:
            return block.names, block.to_bytes()
        added = _block_of(more)
        try:
            added.add(more)
            return block.names + added.names, block.joined_with(added)
        except ValueError as error:
            raise UnstorableRowError(str(error)) from error


def _block_of(columns: Mapping[str, Sequence[Any]]) -> NativeBlock:
    return NativeBlock((name, _COLUMN_TYPES.get(name, _OTHER_COLUMN_TYPE)) for name in columns)
