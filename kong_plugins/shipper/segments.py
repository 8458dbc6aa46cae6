"""What is known of every segment: how far it was shipped, how far it is committed, when it last grew.

Nothing of this is on disk. After a start everything counts as shipped up to where it is committed; what was
shipped beyond goes again, and the event id makes it count once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Segment:
    """Offsets in bytes: 0 <= committed, shipped <= size. `grown_at` is monotonic seconds."""

    path: Path
    size: int
    grown_at: float
    shipped: int = 0
    committed: int = 0
    # Up to where unreadable lines are in the quarantine already: a second shipping does not add them again.
    rejected_to: int = 0
    # The size at which no whole line was left to ship.
    torn_at_size: int = -1
    # The file was there and could not be read: tried again, but nothing else waits for it.
    unreadable: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def waiting_bytes(self) -> int:
        return max(self.size - self.shipped, 0)

    def grew(self, *, size: int, now: float) -> None:
        if size != self.size:
            self.size, self.grown_at = size, now


class SegmentBook:
    """All segments of a spool directory, oldest first."""

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(list(self._segments.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._segments

    def add(self, path: Path, *, now: float) -> Segment:
        segment = Segment(path=path, size=path.stat().st_size, grown_at=now)
        self._segments[segment.name] = segment
        return segment

    def remove(self, segment: Segment) -> None:
        del self._segments[segment.name]

    def observe(self, *, now: float, final_after_seconds: float) -> list[Segment]:
        """Look at the size of every segment that may still grow. Returns those that are gone from the disk."""
        gone = []
        for segment in self._segments.values():
            if now - segment.grown_at <= final_after_seconds or segment.waiting_bytes:
                try:
                    segment.grew(size=segment.path.stat().st_size, now=now)
                except FileNotFoundError:
                    gone.append(segment)
        return gone

    def waiting(self) -> list[Segment]:
        """Segments with bytes that were not shipped yet."""
        return [segment for segment in self._segments.values() if segment.shipped < segment.size]

    def has_backlog(self) -> bool:
        """Whether there is more to ship than lines that are not finished or cannot be read."""
        return any(not segment.unreadable and segment.torn_at_size != segment.size for segment in self.waiting())

    def targets(self) -> dict[str, int]:
        """Sizes that have to be shipped before everything seen so far is shipped."""
        return {segment.name: segment.size for segment in self.waiting()}

    def is_shipped(self, name: str, size: int) -> bool:
        segment = self._segments.get(name)
        return segment is None or segment.shipped >= size

    def is_committed(self, name: str, end: int) -> bool:
        segment = self._segments.get(name)
        return segment is None or segment.committed >= end

    def commit(self, positions: Mapping[str, int]) -> bool:
        """Take over published positions; True where one moved. What is not among them stays as it was."""
        moved = False
        for name, end in positions.items():
            segment = self._segments.get(name)
            if segment is not None and segment.committed != end:
                segment.committed = end
                moved = True
        return moved

    def fall_back(self) -> int:
        """Ship everything after the committed positions again. Returns how many bytes that is."""
        again = 0
        for segment in self._segments.values():
            start = min(segment.committed, segment.size)
            again += max(segment.shipped - start, 0)
            segment.shipped, segment.torn_at_size = start, -1
        return again

    def finished(self, *, now: float, final_after_seconds: float) -> list[Segment]:
        """Segments that are committed whole and have had no writer for long enough."""
        return [
            segment
            for segment in self._segments.values()
            if segment.committed == segment.size == segment.shipped
            and now - segment.grown_at >= final_after_seconds
        ]
