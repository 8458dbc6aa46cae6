"""Loops that outlive every failure: a round that fails is counted, logged and tried again later."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from control_plane.gateway_sync import metrics

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 5.0


class Wake:
    """Ends a pause early. A wake that comes while nobody waits ends the next pause."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout_seconds)
        self._event.clear()


async def run_forever(
    name: str,
    one_round: Callable[[], Awaitable[float]],
    *,
    stop: asyncio.Event,
    wake: Wake,
) -> None:
    """Call `one_round` until `stop`; it returns how many seconds to pause, unless woken.

    After a failure the pause grows from a quarter of a second to five seconds, and nothing wakes it but `stop`.
    """
    failures = 0
    stopping = asyncio.create_task(_forward(stop, wake))
    try:
        while not stop.is_set():
            try:
                pause_seconds = await one_round()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round may go better
                failures += 1
                metrics.FAILURES.labels(name).inc()
                log.warning("a round failed", loop=name, failures=failures, error=repr(error))
                await pause(stop, _backoff_seconds(failures))
            else:
                await wake.wait(pause_seconds)
    finally:
        stopping.cancel()


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return at once when `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _forward(stop: asyncio.Event, wake: Wake) -> None:
    await stop.wait()
    wake.set()


def _backoff_seconds(failures: int) -> float:
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
