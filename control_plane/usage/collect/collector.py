"""The collector: from a source of usage (`source.UsageSource`) to stored events.

For each batch, in this order: store the events (acknowledged) - commit positions and touched hours in one
PostgreSQL transaction - publish the positions - acknowledge and delete the entries. A crash between any two of
these leads to redelivery, and the event id makes every call count once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms, utc_now
from control_plane.foundation.rounds import Pauses
from control_plane.usage import metrics
from control_plane.usage.collect.enrichment import AccountCache
from control_plane.usage.collect.entries import EntryBatch, SegmentKey
from control_plane.usage.collect.positions import (
    commit_positions,
    forget_old_positions,
    note_replays,
    positions_to_publish,
    touch,
)
from control_plane.usage.collect.source import Entries, SourceEmptiedError, UsageSource
from control_plane.usage.collect.storing import EventWriter, StoredHours
from gateway_contract.usage_lines import MAX_BYTES_PER_ENTRY, MAX_LINES_PER_ENTRY

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """A batch ends at `max_lines`, `max_bytes` or `max_age_seconds`, whichever comes first.

    No batch is larger, claimed ones included: no more entries are asked for than have room at the largest size
    that shippers make (`gateway_contract.usage_lines`), or that came with the last read. Only entries that no
    shipper of ours makes can pass a bound. So a collector's memory is bounded whatever is waiting.
    """

    max_lines: int = 50_000
    max_bytes: int = 32 * 1024 * 1024
    max_age_seconds: float = 0.2
    entries_per_read: int = 40
    wait_seconds: float = 1.0
    # a batch not acknowledged for so long is taken over; taking over too early only costs work
    claim_after_seconds: float = 30.0
    housekeeping_seconds: float = 5.0
    keep_positions: timedelta = timedelta(days=1)


@dataclass(slots=True)
class Progress:
    """A batch on its way: which steps are behind it, and what they found."""

    batch: EntryBatch
    started: float
    hours: StoredHours = field(default_factory=StoredHours)
    positions: dict[SegmentKey, int] = field(default_factory=dict)
    steps_done: int = 0


class Collector:
    """One consumer of one source. Run as many as wanted, in any processes."""

    def __init__(
        self,
        *,
        config: CollectorConfig,
        source: UsageSource,
        sessions: async_sessionmaker[AsyncSession],
        writer: EventWriter,
        clock: Callable[[], datetime] = utc_now,
        refresh_catalog: Callable[[], Awaitable[None]] | None = None,
        accounts: AccountCache | None = None,
    ) -> None:
        """Without `accounts` events are stored without subscription and plan.

        `refresh_catalog` runs before each batch is stored: the first calls to a new endpoint have its name.
        """
        self._config = config
        self._source = source
        self._sessions = sessions
        self._writer = writer
        self._clock = clock
        self._refresh_catalog = refresh_catalog
        self._accounts = accounts
        self._entry_bytes = MAX_BYTES_PER_ENTRY
        self._housekeeping_at = 0.0
        self.steps: tuple[tuple[str, Callable[[Progress], Awaitable[None]]], ...] = (
            ("store", self._store),
            ("commit", self._commit),
            ("publish", self._publish),
            ("acknowledge", self._acknowledge),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop`; the batch in hand is finished first, unless a store is away.

        Every failure is counted, logged and tried again; none comes out of here.
        """
        pauses = Pauses(stop)
        while not stop.is_set():
            try:
                if time.monotonic() >= self._housekeeping_at:
                    await self._housekeep()
                batch = await self.read_batch(wait_seconds=self._config.wait_seconds)
                pauses.reset()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round may go better
                _failed("read", error)
                await pauses.wait()
                continue
            if batch:
                await self._work_off(batch, stop, pauses)

    async def collect(self, *, wait_seconds: float = 0.0) -> int:
        """Work off one batch of what is waiting and return how many entries it had; failures come out."""
        batch = await self.read_batch(wait_seconds=wait_seconds)
        if batch:
            progress = Progress(batch, time.monotonic())
            await self._take_steps(progress)
        return len(batch.ids)

    async def read_batch(self, *, wait_seconds: float) -> EntryBatch:
        """Return what is waiting, after `wait_seconds` at the latest; then gather more for `max_age_seconds`."""
        batch = EntryBatch()
        deadline = None
        while count := self._room(batch):
            left = wait_seconds if deadline is None else deadline - time.monotonic()
            if deadline is not None and left <= 0:
                break
            try:
                found = await self._read(count=count, wait_ms=max(1, int(left * 1000)))
            except Exception as error:
                if not batch:
                    raise
                _failed("read", error)
                break  # what was read before is worth working off
            self._take(batch, found)
            if not found:
                break
            deadline = deadline or time.monotonic() + self._config.max_age_seconds
        return batch

    async def claim_batch(self) -> EntryBatch:
        """Take over entries that were given to a collector which has not acknowledged them for long."""
        batch = EntryBatch()
        idle_ms = int(self._config.claim_after_seconds * 1000)
        try:
            self._take(batch, await self._source.claim(count=self._room(batch), idle_ms=idle_ms))
        except SourceEmptiedError:
            return batch  # the next read begins anew
        if batch:
            metrics.CLAIMED.inc(len(batch.ids))
            log.warning("took over entries of a collector that went away", entries=len(batch.ids))
        return batch

    def _room(self, batch: EntryBatch) -> int:
        """Return how many entries more the batch has room for, however large they are; at least one if empty."""
        config = self._config
        by_lines = (config.max_lines - batch.line_count) // MAX_LINES_PER_ENTRY
        by_bytes = (config.max_bytes - batch.byte_count) // self._entry_bytes
        room = min(by_lines, by_bytes, config.entries_per_read)
        return room if batch else max(1, room)

    def _take(self, batch: EntryBatch, found: Entries) -> None:
        largest = max((batch.add(entry_id, fields) for entry_id, fields in found), default=0)
        self._entry_bytes = max(MAX_BYTES_PER_ENTRY, largest)

    async def _read(self, *, count: int, wait_ms: int) -> Entries:
        try:
            return await self._source.read(count=count, wait_ms=wait_ms)
        except SourceEmptiedError:
            await self._begin()
            return []

    async def _begin(self) -> None:
        """Start anew after the source lost everything (or at the very first start)."""
        async with self._sessions() as session:
            positions = await positions_to_publish(session)
        await self._source.begin(positions)
        metrics.GROUPS_MADE.inc()
        log.warning("began a source of usage", source=self._source.name)

    async def _work_off(self, batch: EntryBatch, stop: asyncio.Event, pauses: Pauses) -> None:
        """Take the steps, each until it succeeds. What `stop` leaves undone stays pending and comes again."""
        progress = Progress(batch, time.monotonic())
        while True:
            try:
                await self._take_steps(progress)
            except Exception as error:  # noqa: BLE001 - the entries stay ours until it works
                _failed(self.steps[progress.steps_done][0], error)
                if stop.is_set():
                    return
                await pauses.wait()
            else:
                pauses.reset()
                return

    async def _take_steps(self, progress: Progress) -> None:
        for _, step in self.steps[progress.steps_done :]:
            await step(progress)
            progress.steps_done += 1
        metrics.ENTRIES.inc(len(progress.batch.ids))
        metrics.BATCH_LINES.observe(progress.batch.line_count)
        metrics.BATCH_BYTES.observe(progress.batch.byte_count)
        metrics.BATCH_SECONDS.observe(time.monotonic() - progress.started)

    async def _store(self, progress: Progress) -> None:
        if self._refresh_catalog is not None:
            await self._refresh_catalog()
        now_ms = to_ms(self._clock())
        found = await asyncio.to_thread(self._writer.read, progress.batch, now_ms)
        grants = await self._accounts.grants(found.accounts) if self._accounts is not None else {}
        progress.hours = await asyncio.to_thread(self._writer.write, found, grants, now_ms)

    async def _commit(self, progress: Progress) -> None:
        batch, now = progress.batch, self._clock()
        claims_ms = batch.claims_ms()
        if not await self._source.holds_all_before(batch.ids):
            # a claim ("shipped up to") in this batch does not mean "collected up to"
            claims_ms = dict.fromkeys(claims_ms, 0)
        async with self._sessions() as session, session.begin():
            progress.positions = await commit_positions(
                session, received=batch.received_ranges(), claims_ms=claims_ms, now=now
            )
            await note_replays(session, hours=progress.hours.with_replays)
            await touch(session, hours=progress.hours.every, now=now)

    async def _publish(self, progress: Progress) -> None:
        await self._source.publish(progress.positions)

    async def _acknowledge(self, progress: Progress) -> None:
        await self._source.acknowledge(progress.batch.ids)

    async def _housekeep(self) -> None:
        """Publish positions that moved lately, take over what others left, forget what is long gone."""
        now = self._clock()
        self._housekeeping_at = time.monotonic() + self._config.housekeeping_seconds
        async with self._sessions() as session, session.begin():
            lately = now - timedelta(seconds=4 * self._config.housekeeping_seconds)
            positions = await positions_to_publish(session, updated_after=lately)
            forgotten = await forget_old_positions(session, now=now, keep=self._config.keep_positions)
        await self._source.publish(positions)
        await self._source.forget(forgotten)
        while batch := await self.claim_batch():
            await self._take_steps(Progress(batch, time.monotonic()))
        await self._source.tidy()
        await self._measure_lag()

    async def _measure_lag(self) -> None:
        lag, source = await self._source.lag(now_ms=to_ms(self._clock())), self._source.name
        metrics.STREAM_LENGTH.labels(source).set(lag.entries)
        metrics.PENDING.labels(source).set(lag.pending)
        metrics.OLDEST_AGE.labels(source).set(lag.oldest_age_seconds)


def _failed(step: str, error: Exception) -> None:
    metrics.FAILURES.labels("collector", step).inc()
    log.warning("the collector failed and tries again", step=step, error=repr(error))
