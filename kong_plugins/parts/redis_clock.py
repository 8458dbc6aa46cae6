"""Redis time between two answers of Redis, and this process's own time, which never steps."""

import time


class RedisClock:
    """Knows Redis time from the newest answer; before the first one it takes the system's clock."""

    __slots__ = ("_ahead_ms",)

    def __init__(self) -> None:
        self._ahead_ms = time.time() * 1000 - time.monotonic() * 1000

    def heard(self, redis_now_ms: int, *, monotonic: float) -> None:
        """Take note of what Redis just said; `monotonic` in seconds."""
        self._ahead_ms = redis_now_ms - monotonic * 1000

    def now_ms(self) -> int:
        """Return Redis time as near as it is known, in ms."""
        return int(time.monotonic() * 1000 + self._ahead_ms)
