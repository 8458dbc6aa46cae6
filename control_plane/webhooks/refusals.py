"""Refusals have a rate of their own: a flood of forged webhooks fills no log, and delays no true one."""

import time
from collections.abc import Callable

PER_SECOND = 5.0
AT_ONCE = 50.0


class Refusals:
    """A bucket of refusals that are still explained and logged one by one; refilled with time."""

    def __init__(
        self,
        *,
        per_second: float = PER_SECOND,
        at_once: float = AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._left = at_once
        self._since = clock()

    def take(self) -> bool:
        """Say whether one more refusal is within the rate."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
