"""The collector: from the usage stream to stored events.

For each batch, in this order: store the events (acknowledged) - commit positions and touched hours in one
PostgreSQL transaction - publish the positions - acknowledge and delete the entries. A crash between any two of
these leads to redelivery, and the event id makes every call count once.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms, utc_now
from control_plane.foundation.redis import RedisClient
from control_plane.usage import metrics
from control_plane.usage.collect.entries import EntryBatch, SegmentKey
from control_plane.usage.collect.positions import (
    commit_positions,
    forget_old_positions,
    note_replays,
    positions_to_publish,
    touch,
)
from control_plane.usage.collect.storing import EventWriter, StoredHours
from control_plane.usage.collect.stream import Entries, GroupMissingError, StreamConsumer
from control_plane.usage.loops import Pauses
from gateway_contract.redis_names import shipper_positions, usage_shard

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """A batch ends at `max_lines`, `max_bytes` or `max_age_seconds`, whichever comes first."""

    shard: int = 0
    shards: int = 1
    max_lines: int = 20_000
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
    """One consumer of one shard. Run as many as wanted, in any processes."""

    def __init__(
        self,
        *,
        config: CollectorConfig,
        redis: RedisClient,
        sessions: async_sessionmaker[AsyncSession],
        writer: EventWriter,
        clock: Callable[[], datetime] = utc_now,
        refresh_catalog: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`redis` must answer in bytes and wait longer than `config.wait_seconds` before it gives up.

        `refresh_catalog` runs before each batch is stored: the first calls to a new endpoint have its name.
        """
        self._config = config
        self._redis = redis
        self._sessions = sessions
        self._writer = writer
        self._clock = clock
        self._refresh_catalog = refresh_catalog
        self._stream = StreamConsumer(redis, shard=config.shard)
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
        config, batch = self._config, EntryBatch()
        deadline = None
        while batch.line_count < config.max_lines and batch.byte_count < config.max_bytes:
            left = wait_seconds if deadline is None else deadline - time.monotonic()
            if deadline is not None and left <= 0:
                break
            try:
                found = await self._read(wait_ms=max(1, int(left * 1000)))
            except RedisError:
                if batch:
                    break  # what was read before is worth working off
                raise
            for entry_id, fields in found:
                batch.add(entry_id, fields)
            if not found:
                break
            deadline = deadline or time.monotonic() + config.max_age_seconds
        return batch

    async def claim_batch(self) -> EntryBatch:
        """Take over entries that were given to a collector which has not acknowledged them for long."""
        batch = EntryBatch()
        try:
            found = await self._stream.claim(
                count=self._config.entries_per_read, idle_ms=int(self._config.claim_after_seconds * 1000)
            )
        except GroupMissingError:
            return batch  # the next read makes it
        for entry_id, fields in found:
            batch.add(entry_id, fields)
        if batch:
            metrics.CLAIMED.inc(len(batch.ids))
            log.warning("took over entries of a collector that went away", entries=len(batch.ids))
        return batch

    async def _read(self, *, wait_ms: int) -> Entries:
        try:
            return await self._stream.read(count=self._config.entries_per_read, wait_ms=wait_ms)
        except GroupMissingError:
            await self._make_group()
            return []

    async def _make_group(self) -> None:
        """Start anew after Redis lost everything (or at the very first start).

        Positions come first: while there is no group, nobody can have read what shippers add now.
        """
        async with self._sessions() as session:
            await self._publish_positions(await positions_to_publish(session))
        await self._stream.make_group()
        metrics.GROUPS_MADE.inc()
        log.warning("made the consumer group", stream=self._stream.name)

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
        metrics.BATCH_SECONDS.observe(time.monotonic() - progress.started)

    async def _store(self, progress: Progress) -> None:
        if self._refresh_catalog is not None:
            await self._refresh_catalog()
        progress.hours = await asyncio.to_thread(self._writer.write, progress.batch, to_ms(self._clock()))

    async def _commit(self, progress: Progress) -> None:
        batch, now = progress.batch, self._clock()
        claims_ms = batch.claims_ms()
        if not await self._everything_before_is_committed(batch):
            claims_ms = dict.fromkeys(claims_ms, 0)
        async with self._sessions() as session, session.begin():
            progress.positions = await commit_positions(
                session, received=batch.received_ranges(), claims_ms=claims_ms, now=now
            )
            await note_replays(session, hours=progress.hours.with_replays)
            await touch(session, hours=progress.hours.every, now=now)

    async def _everything_before_is_committed(self, batch: EntryBatch) -> bool:
        """Say whether a claim ("shipped up to") in this batch also means "collected up to".

        It does if no entry before its last one is pending but ours, and ours are (Redis has not been emptied).
        """
        try:
            return await self._stream.pending_up_to_last(batch.ids) == set(batch.ids)
        except GroupMissingError:
            return False  # emptied since the batch was read

    async def _publish(self, progress: Progress) -> None:
        await self._publish_positions(progress.positions)

    async def _publish_positions(self, positions: Mapping[SegmentKey, int]) -> None:
        """Publish those of our shard; the other shards' collectors publish theirs."""
        by_shipper: dict[str, dict[str, int]] = {}
        for key, end in positions.items():
            if key.segment and self._is_ours(key):
                by_shipper.setdefault(key.shipper_id, {})[key.segment] = end
        async with self._pipeline() as pipeline:
            for shipper_id, ends in by_shipper.items():
                pipeline.hset(shipper_positions(self._config.shard, shipper_id), mapping=ends)

    def _is_ours(self, key: SegmentKey) -> bool:
        return usage_shard(key.shipper_id, self._config.shards) == self._config.shard

    async def _acknowledge(self, progress: Progress) -> None:
        await self._stream.acknowledge(progress.batch.ids)

    @contextlib.asynccontextmanager
    async def _pipeline(self) -> AsyncIterator[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            yield pipeline
            if len(pipeline):
                await pipeline.execute()

    async def _housekeep(self) -> None:
        """Publish positions that moved lately, take over what others left, forget what is long gone."""
        now = self._clock()
        self._housekeeping_at = time.monotonic() + self._config.housekeeping_seconds
        async with self._sessions() as session, session.begin():
            lately = now - timedelta(seconds=4 * self._config.housekeeping_seconds)
            positions = await positions_to_publish(session, updated_after=lately)
            forgotten = await forget_old_positions(session, now=now, keep=self._config.keep_positions)
        await self._publish_positions(positions)
        async with self._pipeline() as pipeline:
            for key in forgotten:
                shard = usage_shard(key.shipper_id, self._config.shards)
                pipeline.hdel(shipper_positions(shard, key.shipper_id), key.segment)
        while batch := await self.claim_batch():
            await self._take_steps(Progress(batch, time.monotonic()))
        metrics.STREAM_LENGTH.labels(str(self._config.shard)).set(await self._stream.length())


def _failed(step: str, error: Exception) -> None:
    metrics.FAILURES.labels("collector", step).inc()
    log.warning("the collector failed and tries again", step=step, error=repr(error))
