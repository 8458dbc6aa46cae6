"""Entries that were shipped and are not committed yet, oldest first, and when that has gone on for too long."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

LONGEST_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Shipped:
    segment: str
    end: int
    entry_id: str


class InFlight:
    """Bounded by its user, who ships nothing while it holds as many entries as the stream may."""

    def __init__(self, *, resend_after_seconds: float) -> None:
        self._entries: deque[_Shipped] = deque()
        self._resend_after_seconds = resend_after_seconds
        self._patience_seconds = resend_after_seconds
        self._waiting_since = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, segment: str, end: int, entry_id: str, *, now: float) -> None:
        if not self._entries:
            self._waiting_since = now
        self._entries.append(_Shipped(segment, end, entry_id))

    def settle(self, is_committed: Callable[[str, int], bool], *, moved: bool, now: float) -> None:
        """Drop what is committed; `moved` says that some position did move, which counts as progress too."""
        while self._entries and is_committed(self._entries[0].segment, self._entries[0].end):
            self._entries.popleft()
            moved = True
        if moved:
            self._waiting_since = now
            self._patience_seconds = self._resend_after_seconds

    def overdue(self, *, now: float) -> str | None:
        """Return the oldest entry's id once nothing has moved for too long."""
        if not self._entries or now - self._waiting_since < self._patience_seconds:
            return None
        return self._entries[0].entry_id

    def wait_on(self, *, now: float) -> None:
        """The entry is where it should be: ask again later."""
        self._waiting_since = now

    def wait_longer(self) -> None:
        """Shipping again may not help either: be twice as patient until something moves."""
        self._patience_seconds = min(self._patience_seconds * 2, LONGEST_WAIT_SECONDS)

    def clear(self) -> None:
        self._entries.clear()
