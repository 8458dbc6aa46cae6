"""Stream entries as they come from Redis, and the batch that is made of many of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from control_plane.usage.model import ByteRange
from gateway_contract.usage_lines import (
    FIELD_DROPPED,
    FIELD_END,
    FIELD_LINES,
    FIELD_SEGMENT,
    FIELD_SHIPPED_UP_TO_MS,
    FIELD_SHIPPER,
    FIELD_START,
)

MAX_NAME_LENGTH = 200
_BIGGEST = 2**63 - 1
_MOST_DIGITS = len(str(_BIGGEST))


class SegmentKey(NamedTuple):
    """One spool segment of one shipper."""

    shipper_id: str
    segment: str


class EntryError(ValueError):
    """A stream entry that no shipper of ours writes; the message names the field."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: a piece of a segment, or a heartbeat (no segment, no lines)."""

    id: bytes
    shipper_id: str
    segment: str
    range: ByteRange
    shipped_up_to_ms: int
    dropped: int
    lines: bytes

    @property
    def line_count(self) -> int:
        return self.lines.count(b"\n") + 1 if self.lines else 0


def read_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """Read an entry.

    Raises:
        EntryError: a field is missing or is not what it should be.
    """
    shipper_id, segment = _name(fields, FIELD_SHIPPER), _name(fields, FIELD_SEGMENT)
    start, end = _number(fields, FIELD_START), _number(fields, FIELD_END)
    if not shipper_id:
        raise EntryError(f"{FIELD_SHIPPER}: empty")
    if end < start:
        raise EntryError(f"{FIELD_END}: before {FIELD_START}")
    lines = fields.get(FIELD_LINES.encode(), b"")
    if lines and not segment:
        raise EntryError(f"{FIELD_SEGMENT}: empty, but there are lines")
    return Entry(
        id=entry_id,
        shipper_id=shipper_id,
        segment=segment,
        range=ByteRange(start, end),
        shipped_up_to_ms=_number(fields, FIELD_SHIPPED_UP_TO_MS),
        dropped=_number(fields, FIELD_DROPPED) if FIELD_DROPPED.encode() in fields else 0,
        lines=lines,
    )


@dataclass(slots=True)
class EntryBatch:
    """Entries that are worked off together, and the ids of those that cannot be read."""

    entries: list[Entry] = field(default_factory=list)
    unreadable: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    line_count: int = 0
    byte_count: int = 0

    def add(self, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> int:
        """Take one entry in, whatever it is, and return its size in bytes; no fields: it was deleted meanwhile."""
        try:
            entry = read_entry(entry_id, fields or {})
        except EntryError as error:
            given = fields or {}
            # its lines may be sound; without any, what there is instead
            raw = given.get(FIELD_LINES.encode()) or b" ".join(part for pair in given.items() for part in pair)
            self.unreadable[entry_id] = (str(error), raw)
            self.byte_count += len(raw)
            return len(raw)
        self.entries.append(entry)
        self.line_count += entry.line_count
        self.byte_count += len(entry.lines)
        return len(entry.lines)

    @property
    def ids(self) -> list[bytes]:
        return [*(entry.id for entry in self.entries), *self.unreadable]

    @property
    def dropped(self) -> int:
        return sum(entry.dropped for entry in self.entries)

    def received_ranges(self) -> dict[SegmentKey, list[ByteRange]]:
        """Return what was received of each segment."""
        found: dict[SegmentKey, list[ByteRange]] = {}
        for entry in self.entries:
            if entry.segment:
                found.setdefault(SegmentKey(entry.shipper_id, entry.segment), []).append(entry.range)
        return found

    def claims_ms(self) -> dict[str, int]:
        """Return the latest "shipped up to" of each shipper; 0 where it claims nothing."""
        found: dict[str, int] = {}
        for entry in self.entries:
            found[entry.shipper_id] = max(found.get(entry.shipper_id, 0), entry.shipped_up_to_ms)
        return found

    def __bool__(self) -> bool:
        return bool(self.entries or self.unreadable)


def entry_order(entry_id: bytes) -> tuple[int, int]:
    """Return what stream entries are ordered by."""
    at_ms, _, sequence = entry_id.partition(b"-")
    return int(at_ms), int(sequence or 0)


def last_id(ids: Sequence[bytes]) -> bytes:
    """Return the id that comes last in the stream."""
    return max(ids, key=entry_order)


def _name(fields: Mapping[bytes, bytes], name: str) -> str:
    raw = fields.get(name.encode())
    if raw is None:
        raise EntryError(f"{name}: missing")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise EntryError(f"{name}: not UTF-8") from error
    if len(text) > MAX_NAME_LENGTH or "\0" in text:
        raise EntryError(f"{name}: not a name")
    return text


def _number(fields: Mapping[bytes, bytes], name: str) -> int:
    raw = fields.get(name.encode())
    if raw is None:
        raise EntryError(f"{name}: missing")
    # by length first: Python refuses to read numbers of thousands of digits with another error
    if not raw.isdigit() or len(raw) > _MOST_DIGITS or int(raw) > _BIGGEST:
        raise EntryError(f"{name}: not a number")
    return int(raw)
