"""Clients of the event store for those who search: a few, each used by one search at a time, and bounded.

What a search may take is bounded in seconds, memory, threads and number, so that however many people search,
collectors and aggregators have the rest of the store; and searches have clients of their own, so that they wait
for nobody but each other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from control_plane.foundation.errors import KmError
from control_plane.usage.store import EventStore, EventStoreConfig


class HistoryUnavailableError(KmError):
    """The event store cannot be reached."""

    def __init__(self, detail: str) -> None:
        super().__init__("event_store_unavailable", "The event store cannot be reached. Try again.", detail=detail)


class HistoryBusyError(KmError):
    """As many searches as may are under way, and none ended in time."""

    def __init__(self) -> None:
        super().__init__("history_busy", "Too many searches are under way. Try again in a moment.")


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much searching may take: `clients` at once, each query so long and large; `wait_seconds` for a turn."""

    clients: int = 2
    query_seconds: int = 10
    query_memory_mb: int = 512
    wait_seconds: float = 5.0


class EventHistory:
    """See `services.History`."""

    def __init__(self, config: EventStoreConfig, limits: HistoryLimits = HistoryLimits()) -> None:
        self._config = replace(config, query_memory_mb=min(config.query_memory_mb, limits.query_memory_mb))
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.clients)
        self._idle: list[EventStore] = []

    @asynccontextmanager
    async def store(self) -> AsyncIterator[EventStore]:
        """Lend a client; a failure closes it, so that the next search opens one anew."""
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise HistoryBusyError from error
        try:
            store = await self._opened()
            try:
                yield store
            except KmError:
                self._idle.append(store)
                raise
            except Exception as error:
                await asyncio.to_thread(store.close)
                raise HistoryUnavailableError(repr(error)) from error
            except BaseException:
                # the caller went away: the thread may still be at work on this client
                await asyncio.shield(asyncio.to_thread(store.close))
                raise
            else:
                self._idle.append(store)
        finally:
            self._turns.release()

    async def check(self) -> None:
        """Ask the store for something; raises when it does not answer. A store that is searching is fine."""
        if self._turns.locked():
            return
        async with self.store() as store:
            await asyncio.to_thread(store.query, "SELECT 1", {})

    async def close(self) -> None:
        """Close the clients that nobody uses."""
        while self._idle:
            await asyncio.to_thread(self._idle.pop().close)

    async def _opened(self) -> EventStore:
        if self._idle:
            return self._idle.pop()
        try:
            store = await asyncio.to_thread(EventStore.open, self._config, max_threads=1)
        except Exception as error:
            raise HistoryUnavailableError(repr(error)) from error
        store.limit(seconds=self._limits.query_seconds)
        return store
