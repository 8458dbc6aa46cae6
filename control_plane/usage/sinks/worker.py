"""Serves all sinks until told to stop: http sinks by any number of processes, files by one at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.outgoing import OutgoingClient
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.sinks.day_files import DayFiles
from control_plane.usage.sinks.model import SinksConfig, pause_after
from control_plane.usage.sinks.sender import PUT_OFF, Sender
from control_plane.usage.store import EventStore, EventStoreConfig

log = structlog.get_logger(__name__)

# files are for one process at a time; any number, the same for ever
_LOCK = text("SELECT pg_try_advisory_xact_lock(4242013)")
# late events are rare behind this; looking through every hour ever sealed would take long
LOOK_BACK = timedelta(days=92)
LOOK_THROUGH_ALL_SECONDS = 3600.0
# looking for days may take one part in so many of the database's time
SELDOM = 30


async def run_sinks(
    *,
    config: SinksConfig,
    event_store: EventStoreConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Send what waits and write files of days until `stop`. Failures are counted, logged and tried again."""
    server: SinkServer | None = None

    async def one_round() -> float:
        nonlocal server
        if server is None:
            store = await asyncio.to_thread(EventStore.open, event_store, max_threads=1)
            server = SinkServer(config, sessions, store, client, clock)
        try:
            return 0 if await server.round(stop) else config.pause_seconds
        except Exception:
            broken, server = server, None
            await asyncio.to_thread(broken.store.close)
            raise

    async with OutgoingClient(
        allow_private=config.allow_private, timeout_seconds=config.timeout_seconds
    ) as client:
        try:
            await repeat("sinks", one_round, stop=stop, failures=metrics.FAILURES.labels("sinks", "round"))
        finally:
            if server is not None:
                await asyncio.to_thread(server.store.close)


class SinkServer:
    """Rounds of sending and writing."""

    def __init__(
        self,
        config: SinksConfig,
        sessions: async_sessionmaker[AsyncSession],
        store: EventStore,
        client: OutgoingClient,
        clock: Callable[[], datetime],
    ) -> None:
        self.store = store
        self._config = config
        self._sessions = sessions
        self._clock = clock
        self._sender = Sender(config=config, sessions=sessions, store=store, client=client, clock=clock)
        self._files = DayFiles(config=config, sessions=sessions, store=store)
        self._filled_at = 0.0
        self._looked_through_at: float | None = None
        self._sealed_after: datetime | None = None
        self._known_sinks: set[str] = set()
        self._look_for_days_at = 0.0

    async def round(self, stop: asyncio.Event) -> bool:
        """Do what there is to do and say whether there was any."""
        await self._fill()
        sent = await self._sender.work(stop)
        return await self._write_day() or sent >= self._config.hours_per_claim

    async def _fill(self) -> None:
        """Look for hours that were sealed, mostly only for new seals; for a new sink, for all it asks for."""
        now = time.monotonic()
        if now - self._filled_at < self._config.fill_seconds:
            return
        began = self._clock()
        sinks = await self._sender.queue.sinks()
        look_through_all = (
            self._looked_through_at is None
            or now - self._looked_through_at > LOOK_THROUGH_ALL_SECONDS
            or not sinks <= self._known_sinks
        )
        await self._sender.queue.fill(sealed_after=None if look_through_all else self._sealed_after)
        self._filled_at, self._sealed_after, self._known_sinks = now, began, sinks
        if look_through_all:
            self._looked_through_at = now

    async def _write_day(self) -> bool:
        began = time.monotonic()
        if began < self._look_for_days_at:
            return False
        async with self._file_lock() as is_ours:
            if not is_ours:
                return False
            due = await self._files.due_day(self._clock(), look_back=LOOK_BACK)
            if due is None:
                # it looks through months of hours, and days are over seldom
                took = time.monotonic() - began
                self._look_for_days_at = began + max(self._config.fill_seconds, SELDOM * took)
                return False
            try:
                await self._files.write(due, now=self._clock())
            except Exception as error:  # noqa: BLE001 - one sink's trouble is not the others'
                attempts = await self._sender.queue.attempts(due.sink_id) + 1
                until = self._clock() + pause_after(attempts)
                PUT_OFF.labels(due.sink_id).inc()
                log.warning(
                    "a day's file cannot be written", sink_id=due.sink_id, day=str(due.day), error=repr(error)
                )
                await self._sender.queue.put_off(
                    due.sink_id, f"{due.day:%Y-%m-%d}: {error}", until=until, now=self._clock()
                )
            return True

    @asynccontextmanager
    async def _file_lock(self) -> AsyncIterator[bool]:
        async with self._sessions() as session, session.begin():
            yield bool(await session.scalar(_LOCK))
