"""Values and rules of usage, without I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

# What the store's columns and sums can hold, far above anything a gateway reports.
MAX_UNITS = 10**12
MAX_STATUS = 999
MAX_BYTES = 10**15
MAX_LATENCY_MS = 2**31 - 1
MAX_SEQUENCE = 2**63 - 1
# Times outside are of no call that this product has seen; the store's hour ends in 2106.
EARLIEST_MS = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1000
LATEST_MS = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1000

FLAG_BAD_RECEIPT = "bad_receipt"
FLAG_LONE_RECEIPT = "lone_receipt"
FLAG_BAD_UNITS = "bad_units"
FLAG_BAD_NUMBER = "bad_number"
FLAG_REPLAYED = "replayed"


class HourKey(NamedTuple):
    """One account's UTC hour, the unit of aggregation. `account_id` is '' for calls of nobody."""

    account_id: str
    hour_ms: int


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """[start, end) of a spool segment."""

    start: int
    end: int


def advance_position(position: int, received: Iterable[ByteRange]) -> tuple[int, list[ByteRange]]:
    """Return how far a segment is complete, and the received ranges beyond the first gap (merged, in order).

    The position moves only over ranges that begin at or before it, so it never passes bytes that nobody stored.
    """
    waiting: list[ByteRange] = []
    for piece in sorted(received):
        if piece.start <= position:
            position = max(position, piece.end)
        elif waiting and piece.start <= waiting[-1].end:
            waiting[-1] = ByteRange(waiting[-1].start, max(waiting[-1].end, piece.end))
        else:
            waiting.append(piece)
    return position, [piece for piece in waiting if piece.end > piece.start]
