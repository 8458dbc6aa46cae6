"""A Kafka topic as the collector's source: some of its partitions, read as one member of the collectors' group.

The group's offsets are committed when a batch is acknowledged, so last of all; whatever happens to a partition
before that, its messages come again, here or elsewhere, and the event id makes them count once.

Whether anything was lost on the way (a topic made anew, messages past their retention, brokers that came back
empty) is seen in the messages themselves (`kafka_chain`). How far each shipper's chain is held stands in Redis, so
that whoever gets the partition next goes on from there. Where the chain breaks, the shipper's epoch is deleted in
Redis: it ships again from its published positions, and nothing that it says of the past is believed until then.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]
from aiokafka.errors import CommitFailedError, IllegalStateError  # type: ignore[import-untyped]

from control_plane.foundation.redis import RedisClient
from control_plane.usage import metrics
from control_plane.usage.collect.entries import MAX_NAME_LENGTH, SegmentKey
from control_plane.usage.collect.kafka_chain import Reached, Sent, follow, read_reached, read_sent
from control_plane.usage.collect.publishing import forget_positions, publish_positions
from control_plane.usage.collect.source import Entries, SourceEmptiedError, SourceLag
from gateway_contract.kafka import KafkaAddress, fields_of_message
from gateway_contract.redis_names import shipper_collected, shipper_epoch, usage_shard
from gateway_contract.usage_lines import FIELD_SHIPPER

CALL_SECONDS = 10.0
KEEP_CHAINS_SECONDS = 7 * 86_400
CONSUMER_OPTIONS = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "request_timeout_ms": 15_000,  # joining a group takes as long as its slowest member needs to come back
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 1_000,
    "metadata_max_age_ms": 60_000,
    # what a broker may send before anybody asked: the bound of what is held beside the batch in hand
    "fetch_max_bytes": 16 * 1024 * 1024,
    "max_partition_fetch_bytes": 2 * 1024 * 1024,
}
_DELETE_IF = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

# What it tells there comes to us as exceptions, too, and not ten times a second.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Given:
    """A message that was read and not acknowledged."""

    partition: Any
    offset: int
    at_ms: int
    shipper_id: str
    sent: Sent | None


class KafkaSource:
    """A consumer that connects when it is first read, and anew after a failure (`source.UsageSource`)."""

    def __init__(self, *, address: KafkaAddress, redis: RedisClient, shards: int = 1) -> None:
        """`redis` must answer in bytes; `shards` as shippers have it, for the names of their positions.

        Raises:
            KafkaAddressError: the address makes no sense, or a certificate cannot be read.
        """
        self._topic = address.topic
        self._options = {**CONSUMER_OPTIONS, **address.client_options(), "group_id": address.group}
        self._redis = redis
        self._shards = shards
        self._begun = False
        self._consumer: Any = None
        self._starting: asyncio.Task[Any] | None = None
        self._given: dict[bytes, _Given] = {}
        self._read_to_ms = 0

    @property
    def name(self) -> str:
        return f"kafka:{self._topic}"

    async def read(self, *, count: int, wait_ms: int) -> Entries:
        if not self._begun:
            raise SourceEmptiedError
        if self._consumer is None and not await self._connect(wait_seconds=wait_ms / 1000):
            return []
        async with self._dropped_if_it_fails():
            found = await self._consumer.getmany(timeout_ms=wait_ms, max_records=count)
        return [self._take(partition, record) for partition, records in found.items() for record in records]

    async def claim(self, *, count: int, idle_ms: int) -> Entries:  # noqa: ARG002 - brokers hand over by themselves
        return []

    async def holds_all_before(self, ids: Sequence[bytes]) -> bool:
        """Say whether no message is missing in the chains of these, as far as each has been collected before."""
        given = [self._given.get(entry_id) for entry_id in ids]
        if None in given:
            return False  # the consumer was lost meanwhile
        known = [one for one in given if one is not None]
        _, broken = await self._follow(known)
        return not broken and all(one.sent for one in known if one.shipper_id)

    async def acknowledge(self, ids: Sequence[bytes]) -> None:
        given = [self._given[entry_id] for entry_id in ids if entry_id in self._given]
        if not given:
            return
        reached, broken = await self._follow(given)
        await self._keep(reached)
        for shipper_id, epoch in broken.items():
            await self._ask_for_all_again(shipper_id, epoch)
        await self._commit(given)
        for entry_id in ids:
            self._given.pop(entry_id, None)

    async def begin(self, positions: Mapping[SegmentKey, int]) -> None:
        """Where the group is at stands in Kafka, so there is nothing to do but to publish."""
        await self.publish(positions)
        self._begun = True

    async def publish(self, positions: Mapping[SegmentKey, int]) -> None:
        await publish_positions(self._redis, positions, shards=self._shards)

    async def forget(self, segments: Collection[SegmentKey]) -> None:
        await forget_positions(self._redis, segments, shards=self._shards)

    async def tidy(self) -> None:
        """Brokers forget members that are gone by themselves."""

    async def lag(self, *, now_ms: int) -> SourceLag:
        """Of our partitions. The age is exact for messages in hand, and else at most what is said."""
        if self._consumer is None:
            return SourceLag(0, 0, 0.0)
        async with asyncio.timeout(CALL_SECONDS):
            partitions = list(self._consumer.assignment())
            ends = await self._consumer.end_offsets(partitions) if partitions else {}
            unread = sum(
                [max(0, ends[partition] - await self._consumer.position(partition)) for partition in partitions]
            )
        held = len(self._given)
        since_ms = min((one.at_ms for one in self._given.values()), default=self._read_to_ms or now_ms)
        return SourceLag(held + unread, held, max(0, now_ms - since_ms) / 1000 if held + unread else 0.0)

    async def aclose(self) -> None:
        """Leave the group; what was not acknowledged goes to its other members at once."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                self._consumer = await starting
        await self._drop()

    async def _connect(self, *, wait_seconds: float) -> bool:
        """Join the group, which may take longer than a read may: then it goes on while others read nothing."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.wait({self._starting}, timeout=wait_seconds)
        if not self._starting.done():
            return False
        task, self._starting = self._starting, None
        self._consumer = task.result()
        log.info("joined the group of collectors", source=self.name)
        return True

    async def _start(self) -> Any:
        consumer = AIOKafkaConsumer(self._topic, **self._options)
        try:
            await consumer.start()
        except BaseException:
            await _stop(consumer)
            raise
        return consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._given.clear()
        if consumer is not None:
            await _stop(consumer)

    @contextlib.asynccontextmanager
    async def _dropped_if_it_fails(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception:
            await self._drop()
            raise

    def _take(self, partition: Any, record: Any) -> tuple[bytes, Mapping[bytes, bytes]]:
        # with its time: offsets begin at 0 again where a topic is made anew
        entry_id = b"%d:%d:%d" % (partition.partition, record.offset, record.timestamp)
        fields = fields_of_message(record.value, record.headers)
        try:
            shipper_id = fields.get(FIELD_SHIPPER.encode(), b"").decode()
        except UnicodeDecodeError:
            shipper_id = ""
        if len(shipper_id) > MAX_NAME_LENGTH:
            shipper_id = (
                ""  # whoever wrote it, it is set aside (`entries.read_entry`) and says nothing of the past
            )
        self._given[entry_id] = _Given(partition, record.offset, record.timestamp, shipper_id, read_sent(fields))
        self._read_to_ms = max(self._read_to_ms, record.timestamp)
        return entry_id, fields

    async def _follow(self, given: Iterable[_Given]) -> tuple[dict[str, Reached], dict[str, str]]:
        """Return how far the chain of each shipper is held with these, and the epochs of those where it breaks."""
        chains: dict[str, list[Sent]] = {}
        for one in sorted(given, key=lambda one: (one.partition, one.offset)):
            if one.shipper_id and one.sent is not None:
                chains.setdefault(one.shipper_id, []).append(one.sent)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for shipper_id in chains:
                pipeline.get(shipper_collected(self._shard_of(shipper_id), shipper_id))
            texts = await pipeline.execute() if chains else []
        reached: dict[str, Reached] = {}
        broken: dict[str, str] = {}
        for (shipper_id, chain), text in zip(chains.items(), texts, strict=True):
            last = read_reached(text.decode(errors="replace") if text else None)
            for sent in chain:
                found = follow(last, sent)
                if found is None:
                    broken[shipper_id] = sent.epoch
                else:
                    reached[shipper_id] = last = found
        return reached, broken

    async def _keep(self, reached: Mapping[str, Reached]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for shipper_id, last in reached.items():
                name = shipper_collected(self._shard_of(shipper_id), shipper_id)
                pipeline.set(name, last.text(), ex=KEEP_CHAINS_SECONDS)
            if reached:
                await pipeline.execute()

    async def _ask_for_all_again(self, shipper_id: str, epoch: str) -> None:
        """Delete the epoch in which something is missing; a newer one stays."""
        name = shipper_epoch(self._shard_of(shipper_id), shipper_id)
        if await cast("Any", self._redis.eval)(_DELETE_IF, 1, name, epoch):
            metrics.KAFKA_GAPS.inc()
            log.warning("messages of a shipper are missing: it has to ship again", shipper=shipper_id)

    def _shard_of(self, shipper_id: str) -> int:
        return usage_shard(shipper_id, self._shards)

    async def _commit(self, given: Sequence[_Given]) -> None:
        """Commit offsets of partitions that are still ours; messages of others come again, to whoever has them."""
        ours = self._consumer.assignment()
        offsets: dict[Any, int] = {}
        for one in given:
            if one.partition in ours:
                offsets[one.partition] = max(offsets.get(one.partition, 0), one.offset + 1)
        moved = {one.partition for one in given} - set(offsets)
        async with self._dropped_if_it_fails(), asyncio.timeout(CALL_SECONDS):
            try:
                if offsets:
                    await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                moved = set(offsets)
        if moved:
            metrics.KAFKA_HANDOVERS.inc()
            log.info("partitions went to another collector in the middle of a batch", partitions=len(moved))


async def _stop(consumer: Any) -> None:
    """Close a consumer, for a while at most: it may wait for what never comes."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CALL_SECONDS):
            await consumer.stop()
