"""Memory that the master and its workers share: heartbeats, metrics, and what tells caches to look again.

Made before the first fork. Every cell has one writer, so there are no locks to be left held by a killed process.
"""

import mmap
import time
from typing import Final

from kong_plugins.server.metrics import MAX_CELLS

_WORD: Final = 8
_INFO_WORDS: Final = 8
_NAMES_BYTES: Final = 256 * 1024
_SLOT_BYTES: Final = MAX_CELLS * _WORD + _INFO_WORDS * _WORD + _NAMES_BYTES
_HEARTBEAT, _NEXT_ID, _NAMES_USED, _CONNECTIONS = range(4)


class WorkerSlot:
    """One worker's part of the board."""

    def __init__(self, memory: memoryview) -> None:
        info_at = MAX_CELLS * _WORD
        names_at = info_at + _INFO_WORDS * _WORD
        self._memory = memory
        self._info = memory[info_at:names_at].cast("q")
        self.values = memory[:info_at].cast("d")
        self.names = memory[names_at:]
        self.names_used = self._info[_NAMES_USED : _NAMES_USED + 1]

    def beat(self) -> None:
        self._info[_HEARTBEAT] = time.monotonic_ns()

    @property
    def heartbeat_age_seconds(self) -> float | None:
        """Seconds since the last beat; None before the first, while the worker is starting."""
        beat = self._info[_HEARTBEAT]
        return (time.monotonic_ns() - beat) / 1e9 if beat else None

    @property
    def connections(self) -> int:
        return self._info[_CONNECTIONS]

    @connections.setter
    def connections(self, count: int) -> None:
        self._info[_CONNECTIONS] = count

    def take_number(self) -> int:
        """Return 0, 1, 2, ... over all workers this slot ever had."""
        number = self._info[_NEXT_ID]
        self._info[_NEXT_ID] = number + 1
        return number

    def metric_names(self) -> bytes:
        return bytes(self.names[: self.names_used[0]])

    def clear(self) -> None:
        """Forget the worker that was here; the numbers it took stay taken."""
        next_id = self._info[_NEXT_ID]
        self._memory[:] = bytes(len(self._memory))
        self._info[_NEXT_ID] = next_id


class SharedBoard:
    """The slots of all workers, and one generation cell each and for the master."""

    def __init__(self, workers: int) -> None:
        self._generation_bytes = (workers + 1) * _WORD
        self._memory = mmap.mmap(-1, self._generation_bytes + workers * _SLOT_BYTES)
        view = memoryview(self._memory)
        self._generations = view[: self._generation_bytes].cast("q")
        self.slots = [
            WorkerSlot(view[start : start + _SLOT_BYTES])
            for start in range(self._generation_bytes, len(view), _SLOT_BYTES)
        ]

    def instances_changed(self, writer: int) -> None:
        """Tell every worker that an instance has been removed. `writer` is a worker's number or MASTER."""
        self._generations[writer] += 1

    def generation(self) -> bytes:
        """Return a value that differs after any removal."""
        return self._memory[: self._generation_bytes]


MASTER: Final = -1
