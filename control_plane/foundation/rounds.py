"""Workers go round until they are stopped: a round that fails is counted, logged and tried again later."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Counter

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return at once when `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class Pauses:
    """Pauses after failures: from a tenth of a second to five, less by up to half by chance. `stop` ends them."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._seconds = FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    async def wait(self) -> None:
        await sleep_unless(self._stop, self._seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        self._seconds = min(LONGEST_PAUSE_SECONDS, self._seconds * 2)


class Wake:
    """Ends a pause early. A wake that comes while nobody waits ends the next pause."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()


async def repeat(
    worker: str,
    one_round: Callable[[], Awaitable[float]],
    *,
    stop: asyncio.Event,
    failures: Counter,
    wake: Wake | None = None,
) -> None:
    """Call `one_round` until `stop`; it returns how many seconds to pause, unless woken. 0: more is to be done.

    After a failure, counted in `failures`, the pause grows from a tenth of a second to five seconds, and nothing
    ends it but `stop`.
    """
    pauses = Pauses(stop)
    wake = Wake() if wake is None else wake
    stopping = asyncio.create_task(_forward(stop, wake))
    try:
        while not stop.is_set():
            try:
                pause_seconds = await one_round()
                pauses.reset()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round may go better
                failures.inc()
                log.warning("a round failed and is tried again", worker=worker, error=repr(error))
                await pauses.wait()
                continue
            if pause_seconds > 0:
                await wake.wait(pause_seconds)
    finally:
        stopping.cancel()


async def _forward(stop: asyncio.Event, wake: Wake) -> None:
    await stop.wait()
    wake.set()
