"""Where events wait until the server has them: the two kinds share this form. Not thread-safe; `Sender` locks."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kong_monetize_client.errors import BufferFullError


@dataclass(frozen=True, slots=True)
class Entry:
    """One waiting event; `segment` and `end` say where it ends in a buffer on disk."""

    line: bytes
    segment: int = 0
    end: int = 0


class Buffer(Protocol):
    """Events in the order in which they came."""

    @property
    def count(self) -> int:
        """How many wait."""
        ...

    def append(self, line: bytes) -> None:
        """Keep one event; raises BufferFullError where it cannot be kept."""
        ...

    def peek(self, *, max_events: int, max_bytes: int) -> list[Entry]:
        """Return the oldest events: one at least, if any waits, and of more only what fits."""
        ...

    def drop(self, entries: Sequence[Entry]) -> None:
        """Forget the oldest events, which `peek` returned: the server has judged them."""
        ...

    def keep_rejected(self, lines: Sequence[bytes]) -> None:
        """Set aside what the server will never take, before it is dropped."""
        ...

    def close(self) -> None:
        """Let go of what is held; what waits on disk stays there."""
        ...


class MemoryBuffer:
    """Waiting events in memory: they die with the process. Rejected ones are told to the callback alone."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lines: deque[bytes] = deque()

    @property
    def count(self) -> int:
        return len(self._lines)

    def append(self, line: bytes) -> None:
        if self._bytes + len(line) > self._max_bytes:
            raise BufferFullError(f"{len(self._lines)} events wait in memory already ({self._bytes} bytes)")
        self._lines.append(line)
        self._bytes += len(line)

    def peek(self, *, max_events: int, max_bytes: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        for line in self._lines:
            size += len(line) + 1
            if found and (len(found) >= max_events or size > max_bytes):
                break
            found.append(Entry(line))
        return found

    def drop(self, entries: Sequence[Entry]) -> None:
        for _ in entries:
            self._bytes -= len(self._lines.popleft())

    def keep_rejected(self, lines: Sequence[bytes]) -> None:
        pass

    def close(self) -> None:
        pass
