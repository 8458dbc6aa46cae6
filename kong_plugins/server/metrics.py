"""Counters, gauges and histograms that cost a tenth of a microsecond and outlive the process they are in.

Values live in a list until a worker attaches its region of shared memory; from then on they live there, so
the master can add up all workers, and loses nothing when one is killed. Outside a server (under kong-pdk's,
or in a test) everything works the same and nobody adds up.

A series belongs to one process and one thread; `inc` from several threads may lose an increment.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar

Labels: TypeAlias = tuple[tuple[str, str], ...]
Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

MAX_CELLS = 8192
DEFAULT_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
OVERFLOW = "km_pluginserver_metric_series_dropped_total"


_Number = TypeVar("_Number", int, float)


class Numbers(Protocol[_Number]):
    """A list, or a memoryview of numbers."""

    def __getitem__(self, index: int, /) -> _Number: ...
    def __setitem__(self, index: int, value: _Number, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Series:
    """What one metric with one set of labels is; its values are `cells` consecutive numbers."""

    kind: Kind
    name: str
    labels: Labels
    help_text: str
    buckets: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        return len(self.buckets) + 2 if self.kind == "histogram" else 1

    def to_line(self) -> bytes:
        return json.dumps([self.kind, self.name, self.labels, self.help_text, self.buckets]).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Series":
        kind, name, labels, help_text, buckets = json.loads(line)
        return cls(kind, name, tuple((key, value) for key, value in labels), help_text, tuple(buckets))


class _Cells:
    """Where values are kept: a list at first, a worker's shared memory once attached."""

    def __init__(self) -> None:
        self.values: Numbers[float] = []
        self.names: memoryview | None = None
        self.names_used: Numbers[int] = [0]
        self.used = 0

    def allocate(self, series: Series) -> int:
        """Return the offset of the series' first cell, or -1 where there is no room for it."""
        start = self.used
        if start + series.cells > MAX_CELLS or not self._write_name(series):
            return -1
        if isinstance(self.values, list):
            self.values.extend([0.0] * series.cells)
        self.used += series.cells
        return start

    def _write_name(self, series: Series) -> bool:
        if self.names is None:
            return True
        line, used = series.to_line(), self.names_used[0]
        if used + len(line) > len(self.names):
            return False
        self.names[used : used + len(line)] = line
        self.names_used[0] = used + len(line)  # last: a reader sees whole lines only
        return True


_cells = _Cells()


class Counter:
    """A number that grows (or, made by `gauge`, is set)."""

    __slots__ = ("_at", "_values", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self._place()

    def _place(self) -> None:
        at = _cells.allocate(self.series)
        # a series without room counts into a list of its own, so that callers need not care
        self._values, self._at = ([0.0], 0) if at < 0 else (_cells.values, at)
        if at < 0:
            dropped_series.inc()

    def cells(self) -> list[float]:
        return [self._values[self._at]]

    def inc(self, amount: float = 1) -> None:
        self._values[self._at] += amount

    def set(self, value: float) -> None:
        self._values[self._at] = value

    @property
    def value(self) -> float:
        """This process's value since it started."""
        return self._values[self._at]


class Histogram:
    """Counts of observations by upper bound, with their sum."""

    __slots__ = ("_at", "_bounds", "_sum_at", "_values", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self._bounds = series.buckets
        self._place()

    def _place(self) -> None:
        at = _cells.allocate(self.series)
        self._values, self._at = ([0.0] * self.series.cells, 0) if at < 0 else (_cells.values, at)
        self._sum_at = self._at + len(self._bounds) + 1
        if at < 0:
            dropped_series.inc()

    def observe(self, value: float) -> None:
        values = self._values
        values[self._at + bisect_left(self._bounds, value)] += 1
        values[self._sum_at] += value

    def cells(self) -> list[float]:
        """Return the count below each bound (not added up), above all of them, and the sum."""
        return [self._values[at] for at in range(self._at, self._sum_at + 1)]

    @property
    def count(self) -> float:
        return sum(self.cells()[:-1])


_Metric = TypeVar("_Metric", Counter, Histogram)
_known: dict[tuple[str, Labels], Counter | Histogram] = {}


def counter(name: str, labels: Mapping[str, str] | None = None, *, help_text: str = "") -> Counter:
    """Return the counter of that name and those labels; the same one every time. Names end in `_total`."""
    return _series_of(Series("counter", name, _labels(labels), help_text), Counter)


def gauge(name: str, labels: Mapping[str, str] | None = None, *, help_text: str = "") -> Counter:
    """Return a gauge; `/metrics` shows the sum over the living workers."""
    return _series_of(Series("gauge", name, _labels(labels), help_text), Counter)


def histogram(
    name: str,
    labels: Mapping[str, str] | None = None,
    *,
    help_text: str = "",
    buckets: Iterable[float] = DEFAULT_BUCKETS,
) -> Histogram:
    """Return a histogram with these ascending upper bounds (`+Inf` is added)."""
    return _series_of(Series("histogram", name, _labels(labels), help_text, tuple(buckets)), Histogram)


def attach(values: Numbers[float], names: memoryview, names_used: Numbers[int]) -> None:
    """Move all series, from zero, into a worker's zeroed shared memory. Call once, right after the fork."""
    _cells.values, _cells.names, _cells.names_used, _cells.used = values, names, names_used, 0
    for series in _known.values():
        series._place()  # noqa: SLF001 - the module's own classes


def own_series() -> dict[Series, list[float]]:
    """Return this process's series and their values."""
    return {one.series: one.cells() for one in _known.values()}


def _series_of(series: Series, cls: type[_Metric]) -> _Metric:
    key = (series.name, series.labels)
    found = _known.get(key)
    if found is None:
        found = _known[key] = cls(series)
    if not isinstance(found, cls) or found.series.kind != series.kind:
        raise TypeError(f"{series.name} is a {found.series.kind} already")
    return found


def _labels(labels: Mapping[str, str] | None) -> Labels:
    return tuple(sorted((labels or {}).items()))


# the first series of all, so that there is always room for it
dropped_series = counter(OVERFLOW, help_text="metric series that found no room in shared memory")
