"""A Redis Stream as the collector's source: one shard, read as one consumer of the collectors' group."""

import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError

from control_plane.foundation.redis import RedisClient
from control_plane.usage.collect.entries import SegmentKey, entry_order, last_id
from control_plane.usage.collect.publishing import forget_positions, publish_positions
from control_plane.usage.collect.source import Entries, SourceEmptiedError, SourceLag
from gateway_contract.redis_names import COLLECTOR_GROUP, usage_shard, usage_stream

# A consumer that has asked for nothing in so long has died; a living one asks every few seconds.
CONSUMER_GONE_MS = 600_000
_TIDY = Path(__file__).with_name("delete_idle_consumers.lua").read_text(encoding="utf-8")


class StreamSource:
    """A consumer with a name of its own. `redis` must answer in bytes."""

    def __init__(self, redis: RedisClient, *, shard: int, shards: int = 1) -> None:
        self._stream = usage_stream(shard)
        self._redis = redis
        self._shard = shard
        self._shards = shards
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    @property
    def name(self) -> str:
        return str(self._shard)

    async def read(self, *, count: int, wait_ms: int) -> Entries:
        with _group_wanted():
            answer = await self._redis.xreadgroup(
                COLLECTOR_GROUP, self._consumer, {self._stream: ">"}, count=count, block=wait_ms
            )
        return _entries(answer)

    async def claim(self, *, count: int, idle_ms: int) -> Entries:
        with _group_wanted():
            answer = await self._redis.xautoclaim(
                self._stream, COLLECTOR_GROUP, self._consumer, min_idle_time=idle_ms, count=count
            )
        return cast("Entries", answer[1])

    async def holds_all_before(self, ids: Sequence[bytes]) -> bool:
        """Ask which entries up to the last are pending: ours must be (Redis was not emptied), and no others."""
        ours = set(ids)
        try:
            with _group_wanted():
                pending = await self._redis.xpending_range(
                    self._stream, COLLECTOR_GROUP, min="-", max=last_id(ids), count=len(ours) + 1
                )
        except SourceEmptiedError:
            return False  # emptied since the batch was read
        return {cast("bytes", row["message_id"]) for row in pending} == ours

    async def acknowledge(self, ids: Sequence[bytes]) -> None:
        async with self._pipeline() as pipeline:
            pipeline.xack(self._stream, COLLECTOR_GROUP, *ids)
            pipeline.xdel(self._stream, *ids)

    async def begin(self, positions: Mapping[SegmentKey, int]) -> None:
        """Positions come first: while there is no group, nobody can have read what shippers add now."""
        await self.publish(positions)
        with contextlib.suppress(ResponseError):  # another collector may have been faster
            await self._redis.xgroup_create(self._stream, COLLECTOR_GROUP, id="0", mkstream=True)

    async def publish(self, positions: Mapping[SegmentKey, int]) -> None:
        """Publish those of our shard; the other shards' collectors publish theirs."""
        ours = {key: end for key, end in positions.items() if self._is_ours(key)}
        await publish_positions(self._redis, ours, shards=self._shards)

    def _is_ours(self, key: SegmentKey) -> bool:
        return usage_shard(key.shipper_id, self._shards) == self._shard

    async def forget(self, segments: Collection[SegmentKey]) -> None:
        await forget_positions(self._redis, segments, shards=self._shards)

    async def tidy(self) -> None:
        """Delete consumers of dead processes from the group, once nothing is pending for them (see `claim`)."""
        with contextlib.suppress(ResponseError):  # no stream, no group: nothing to tidy
            await cast("Any", self._redis.eval)(_TIDY, 1, self._stream, COLLECTOR_GROUP, CONSUMER_GONE_MS)

    async def lag(self, *, now_ms: int) -> SourceLag:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xlen(self._stream)
            pipeline.xrange(self._stream, count=1)
            pipeline.xpending(self._stream, COLLECTOR_GROUP)
            entries, first, pending = await pipeline.execute(raise_on_error=False)
        for answer in (entries, first):
            if isinstance(answer, Exception):
                raise answer
        oldest_ms = entry_order(first[0][0])[0] if first else now_ms
        given = pending["pending"] if isinstance(pending, dict) else 0  # an error: there is no group
        return SourceLag(entries, given, max(0, now_ms - oldest_ms) / 1000)

    async def aclose(self) -> None:
        """Entries of this consumer are claimed by others after a while."""

    @contextlib.asynccontextmanager
    async def _pipeline(self) -> AsyncIterator[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            yield pipeline
            if len(pipeline):
                await pipeline.execute()


@contextlib.contextmanager
def _group_wanted() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        if _is_group_missing(error):
            raise SourceEmptiedError from error
        raise


def _entries(answer: Any) -> Entries:
    """Return the entries of one stream; RESP3 answers with a mapping, RESP2 with pairs."""
    if not answer:
        return []
    streams = answer.values() if isinstance(answer, dict) else [found for _, found in answer]
    entries: list[tuple[bytes, Mapping[bytes, bytes]]] = []
    for found in streams:
        # RESP3 clients differ in whether they wrap the list once more
        flat = found[0] if found and isinstance(found[0], list) else found
        entries += flat
    return entries


def _is_group_missing(error: RedisError) -> bool:
    return str(error).startswith("NOGROUP")
