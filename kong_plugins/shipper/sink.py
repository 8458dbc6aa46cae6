"""Where entries go: what the shipper asks of a Redis stream or a Kafka topic.

Every failure of a sink, whatever it is, becomes `SinkAwayError`: the spool keeps the lines, so waiting is always
right. Nothing is retried by the caller inside a call. An entry whose answer did not come is added again; the event
id makes its lines count once.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from gateway_contract import usage_lines


class SinkAwayError(Exception):
    """The sink did not answer, or answered with an error. Whether the last entry was added is unknown."""

    store = "redis"


class SinkChangedError(SinkAwayError):
    """Another sink answers than the one that was begun, and may lack the last entries; nothing was said to it."""


class PositionsAwayError(SinkAwayError):
    """Positions cannot be learned now. Entries can be added all the same."""


class Refusal(Enum):
    """Why an entry was not added."""

    FULL = "full"
    TOO_LARGE = "too_large"
    EPOCH_LOST = "epoch_lost"
    EPOCH_TAKEN = "epoch_taken"


class Fate(Enum):
    """Where an entry that was added, but is not committed, is now."""

    WAITING = "waiting"  # there, not read yet or not acknowledged
    LOST = "lost"  # not there any more, or acknowledged without a commit
    UNKNOWN = "unknown"  # it cannot be known, or nobody keeps a reading position there


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stream entry. A heartbeat has no segment, no lines, and start = end = 0."""

    segment: str = ""
    start: int = 0
    end: int = 0
    shipped_up_to_ms: int
    lines: bytes = b""
    dropped: int = 0

    def fields(self, *, shipper_id: str) -> dict[str, str | int | bytes]:
        return {
            usage_lines.FIELD_SHIPPER: shipper_id,
            usage_lines.FIELD_SEGMENT: self.segment,
            usage_lines.FIELD_START: self.start,
            usage_lines.FIELD_END: self.end,
            usage_lines.FIELD_SHIPPED_UP_TO_MS: self.shipped_up_to_ms,
            usage_lines.FIELD_DROPPED: self.dropped,
            usage_lines.FIELD_LINES: self.lines,
        }


class UsageSink(Protocol):
    """One shipper's view of its sink. For one thread. Entries arrive in the order in which they were added."""

    kind: str
    """What it is, for logs and the health page."""
    name: str
    """Which one it is."""

    def begin(self) -> dict[str, int]:
        """Take the epoch for this run and return the committed positions (segment -> end offset).

        Raises:
            SinkAwayError.
        """
        ...

    def add(self, entry: Entry, *, most_entries: int) -> str | Refusal:
        """Add one entry and return its id once the sink has it for good; or say why it was not added.

        Raises:
            SinkChangedError: nothing was added.
            SinkAwayError.
        """
        ...

    def positions(self) -> dict[str, int]:
        """Return the committed positions as the collector published them.

        Raises:
            PositionsAwayError: other things still work.
            SinkAwayError.
        """
        ...

    def forget(self, segments: list[str]) -> None:
        """Remove published positions of segments that are deleted.

        Raises:
            SinkAwayError.
        """
        ...

    def fate(self, entry_id: str) -> Fate:
        """Say where an entry is that should have been committed by now.

        Raises:
            SinkAwayError.
        """
        ...

    def close(self) -> None: ...
