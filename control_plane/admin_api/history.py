"""One client of the event store, opened when first needed and used by one search at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from control_plane.foundation.errors import KmError
from control_plane.usage.store import EventStore, EventStoreConfig

log = structlog.stdlib.get_logger(__name__)


class HistoryUnavailableError(KmError):
    """The event store cannot be reached."""

    def __init__(self, detail: str) -> None:
        super().__init__("event_store_unavailable", "The event store cannot be reached. Try again.", detail=detail)


class EventHistory:
    """See `services.History`."""

    def __init__(self, config: EventStoreConfig) -> None:
        self._config = config
        self._turn = asyncio.Lock()
        self._store: EventStore | None = None

    @asynccontextmanager
    async def store(self) -> AsyncIterator[EventStore]:
        """Lend the store; a failure closes it, so that the next search opens it anew."""
        async with self._turn:
            store = await self._opened()
            try:
                yield store
            except KmError:
                raise
            except Exception as error:
                await self._close()
                raise HistoryUnavailableError(repr(error)) from error

    async def check(self) -> None:
        """Ask the store for something; raises when it does not answer. A store that is searching is fine."""
        if self._turn.locked():
            return
        async with self._turn:
            store = await self._opened()
            await asyncio.to_thread(store.dead_letters, limit=1)

    async def close(self) -> None:
        async with self._turn:
            await self._close()

    async def _opened(self) -> EventStore:
        if self._store is None:
            try:
                self._store = await asyncio.to_thread(EventStore.open, self._config)
            except Exception as error:
                raise HistoryUnavailableError(repr(error)) from error
        return self._store

    async def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)
