"""Sliding windows of this process alone, for plans that stay open while Redis is away.

The same rules as the limit script's: exact up to 100, sixtieths of the window above. Each process counts for
itself: in any interval of a window's length at most the limit gets through for each worker process, beside what
Redis had admitted in it before it went away.
"""

from collections import deque
from collections.abc import Sequence

from kong_plugins.parts.bounded_map import BoundedMap
from kong_plugins.parts.limit_script import EXACT_UP_TO, Limit

SPANS = 60


class LocalWindows:
    """`capacity` bounds how many windows are remembered; the ones used last are."""

    def __init__(self, capacity: int = 20_000) -> None:
        self._states: BoundedMap[str, _Exact | _Counted] = BoundedMap(capacity)

    def take(self, windows: Sequence[tuple[str, Limit]], *, now_ms: int) -> tuple[Limit, int] | None:
        """Admit one call in all windows, or in none of them. `now_ms` must be of a clock that never steps.

        Returns None when admitted, else the window with the longest wait and that wait in ms.
        """
        hit: tuple[Limit, int] | None = None
        states = [self._state(name, limit) for name, limit in windows]
        for state, (_, limit) in zip(states, windows, strict=True):
            wait_ms = state.wait_ms(limit.limit, now_ms)
            if wait_ms > 0 and (hit is None or wait_ms > hit[1]):
                hit = limit, wait_ms
        if hit is None:
            for state in states:
                state.take(now_ms)
        return hit

    def _state(self, name: str, limit: Limit) -> "_Exact | _Counted":
        state = self._states.get(name)
        kind = _Counted if limit.limit > EXACT_UP_TO else _Exact
        if not isinstance(state, kind):
            # new, or the limit has crossed a hundred
            admitted = [] if state is None else state.times_ms()
            state = kind(limit.window_ms or 1)
            for at_ms in admitted:
                state.take(at_ms)
            self._states.put(name, state)
        return state


class _Exact:
    """The time of each admission, oldest first."""

    __slots__ = ("_times", "_window_ms")

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._times: deque[int] = deque()

    def wait_ms(self, limit: int, now_ms: int) -> int:
        times = self._times
        while times and now_ms - times[0] >= self._window_ms:
            times.popleft()
        if len(times) < limit:
            return 0
        return self._window_ms if limit < 1 else times[len(times) - limit] + self._window_ms - now_ms

    def take(self, now_ms: int) -> None:
        self._times.append(now_ms)

    def times_ms(self) -> list[int]:
        return list(self._times)


class _Counted:
    """Calls by bucket, oldest first."""

    __slots__ = ("_buckets", "_total", "_width_ms")

    def __init__(self, window_ms: int) -> None:
        self._width_ms = max(1, -(-window_ms // SPANS))
        self._buckets: deque[list[int]] = deque()
        self._total = 0

    def wait_ms(self, limit: int, now_ms: int) -> int:
        current = now_ms // self._width_ms
        while self._buckets and current - self._buckets[0][0] > SPANS:
            self._total -= self._buckets.popleft()[1]
        if self._total < limit:
            return 0
        left = self._total
        for bucket, count in self._buckets:
            left -= count
            if left < limit:
                return (bucket + SPANS + 1) * self._width_ms - now_ms
        return (SPANS + 1) * self._width_ms

    def take(self, now_ms: int) -> None:
        current = now_ms // self._width_ms
        if not self._buckets or self._buckets[-1][0] < current:
            self._buckets.append([current, 0])
        self._buckets[-1][1] += 1
        self._total += 1

    def times_ms(self) -> list[int]:
        """Return the times at which calls were admitted, none earlier than it was."""
        return [(bucket + 1) * self._width_ms - 1 for bucket, count in self._buckets for _ in range(count)]
