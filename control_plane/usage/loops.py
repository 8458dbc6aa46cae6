"""Pauses of workers that outlive every failure."""

import asyncio
import contextlib

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class Pauses:
    """Pauses between attempts: from a tenth of a second to five, each ended early by `stop`."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._seconds = FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    async def wait(self) -> None:
        await sleep_unless(self._stop, self._seconds)
        self._seconds = min(LONGEST_PAUSE_SECONDS, self._seconds * 2)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return at once when `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
