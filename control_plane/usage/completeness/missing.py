"""Finds which call numbers of an hour have no event, when they were issued and who may have had them. Blocking."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from control_plane.usage.completeness.model import (
    CountedHour,
    Emitter,
    MissingCalls,
    Numbers,
    StoredCalls,
    gaps,
    suspects,
)
from control_plane.usage.model import HourKey
from control_plane.usage.store import EventStore
from control_plane.usage.store.call_numbers import BUCKET_SIZE, NumberBucket, emitters_heard, stored_numbers
from gateway_contract.counters import HOUR_MS

# how many buckets of 65,536 numbers are looked at one by one, and how many gaps are told, for one hour
MOST_BUCKETS = 16
MOST_GAPS = 200
# numbers around a bucket, in which its first and last gap's neighbours are looked for
MARGIN = 1000
AROUND_MS = 10 * 60_000


@dataclass(frozen=True, slots=True)
class MissingFound:
    """How many numbers have no event (exact), and the first gaps."""

    calls: int = 0
    gaps: tuple[MissingCalls, ...] = ()


def stored_calls(buckets: Iterable[NumberBucket]) -> StoredCalls:
    """Return how many calls are stored with a number and without."""
    numbered = unnumbered = 0
    for bucket in buckets:
        if bucket.bucket < 0:
            unnumbered += bucket.calls
        else:
            numbered += bucket.calls
    return StoredCalls(numbered, unnumbered)


def find_missing(
    store: EventStore,
    hour: HourKey,
    *,
    product: str,
    mode: str,
    counted: CountedHour,
    buckets: Sequence[NumberBucket],
) -> MissingFound:
    """Return which of the numbers that were issued in this hour are not stored.

    Mostly sums tell that all of them are there; only buckets that lack some are read number by number.
    """
    by_bucket = {bucket.bucket: bucket for bucket in buckets}
    doubtful = [part for part in _by_buckets(counted.numbers) if not _is_whole(part, by_bucket)]
    calls, found = 0, []
    for part in doubtful[:MOST_BUCKETS]:
        for numbers in part.numbers:
            first, last = numbers.first - MARGIN, numbers.last + MARGIN
            stored = stored_numbers(store, hour, product=product, mode=mode, first=first, last=last)
            found += gaps(numbers, stored)
    calls = sum(gap.numbers.size for gap in found)
    for part in doubtful[MOST_BUCKETS:]:
        there = by_bucket[part.bucket].numbers if part.bucket in by_bucket else 0
        calls += max(0, part.size - there)
    return MissingFound(calls, tuple(_joined(found)[:MOST_GAPS]))


def name_nodes(store: EventStore, hour: HourKey, found: Sequence[MissingCalls]) -> list[MissingCalls]:
    """Return the gaps with the processes that may have had the calls."""
    start_ms, end_ms = hour.hour_ms - AROUND_MS, hour.hour_ms + HOUR_MS + AROUND_MS
    emitters = [
        Emitter(heard.name, heard.shipper, heard.first_ms, heard.last_ms, heard.holes)
        for heard in emitters_heard(store, start_ms=start_ms, end_ms=end_ms)
    ]
    return [replace(gap, nodes=suspects(gap, emitters, hour_ms=hour.hour_ms)) for gap in found]


@dataclass(frozen=True, slots=True)
class _Part:
    """Issued numbers that lie in one bucket."""

    bucket: int
    numbers: tuple[Numbers, ...]

    @property
    def size(self) -> int:
        return sum(numbers.size for numbers in self.numbers)

    @property
    def sum(self) -> int:
        return sum((numbers.first + numbers.last) * numbers.size // 2 for numbers in self.numbers)


def _by_buckets(ranges: Iterable[Numbers]) -> list[_Part]:
    parts: dict[int, list[Numbers]] = {}
    for first, last in ranges:
        for bucket in range((first - 1) // BUCKET_SIZE, (last - 1) // BUCKET_SIZE + 1):
            inside = Numbers(max(first, bucket * BUCKET_SIZE + 1), min(last, (bucket + 1) * BUCKET_SIZE))
            parts.setdefault(bucket, []).append(inside)
    return [_Part(bucket, tuple(numbers)) for bucket, numbers in sorted(parts.items())]


def _is_whole(part: _Part, stored: dict[int, NumberBucket]) -> bool:
    """Say whether exactly the issued numbers are stored, each once."""
    found = stored.get(part.bucket)
    return found is not None and (found.calls, found.numbers, found.sum_of_numbers) == (
        part.size,
        part.size,
        part.sum,
    )


def _joined(found: Iterable[MissingCalls]) -> list[MissingCalls]:
    """Join gaps that meet where a bucket ends."""
    joined: list[MissingCalls] = []
    for gap in found:
        before = joined[-1] if joined else None
        if before is not None and before.numbers.last + 1 == gap.numbers.first:
            joined[-1] = MissingCalls(
                Numbers(before.numbers.first, gap.numbers.last), before.after_ms, gap.before_ms
            )
        else:
            joined.append(gap)
    return joined
