"""How fast Stripe is asked: so many requests a second, and one at a time where Stripe wants it so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


class TokenBucket:
    """Lets `per_second` requests through, up to a second's worth at once; the rest wait their turn."""

    def __init__(self, per_second: float, *, clock: Callable[[], float]) -> None:
        self._interval = 1.0 / per_second
        self._credit = 1.0 - self._interval  # how far turns may lie back: a full bucket holds a second's worth
        self._clock = clock
        self._next_at = clock() - self._credit

    def reserve(self) -> float:
        """Take the next turn; returns in how many seconds it is."""
        now = self._clock()
        turn = max(self._next_at, now - self._credit)
        self._next_at = turn + self._interval
        return max(0.0, turn - now)

    async def wait(self) -> None:
        """Take the next turn and wait for it."""
        if seconds := self.reserve():
            await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock
    users: int = 0


class Lanes:
    """One at a time within a lane; lanes that nobody is in take no memory."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def enter(self, name: str | None) -> AsyncIterator[None]:
        """Wait until the lane is free and hold it; None is no lane at all."""
        if name is None:
            yield
            return
        lane = self._lanes.setdefault(name, _Lane(asyncio.Lock()))
        lane.users += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[name]
