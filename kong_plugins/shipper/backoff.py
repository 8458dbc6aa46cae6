"""How long to leave Redis alone after it failed."""

import random

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 5.0


class Backoff:
    """Waits twice as long after each failure in a row, with jitter so that shippers do not come back together."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS
        self._until = 0.0

    def is_over(self, *, now: float) -> bool:
        return now >= self._until

    def fail(self, *, now: float) -> float:
        """Begin to wait; returns for how long."""
        wait_seconds = self._seconds * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._seconds = min(self._seconds * 2, LONGEST_SECONDS)
        self._until = now + wait_seconds
        return wait_seconds

    def pause(self, *, now: float, seconds: float) -> None:
        self._until = now + seconds

    def succeed(self) -> None:
        self._seconds = FIRST_SECONDS
