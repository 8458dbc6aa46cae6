"""One shard's stream of usage, as one consumer of the collectors' group reads it."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError

from control_plane.foundation.redis import RedisClient
from control_plane.usage.collect.entries import last_id
from gateway_contract.redis_names import COLLECTOR_GROUP, usage_stream

Entries = list[tuple[bytes, Mapping[bytes, bytes]]]


class GroupMissingError(Exception):
    """Redis lost everything, or nobody ever read: the group is not there."""


class StreamConsumer:
    """A consumer with a name of its own. `redis` must answer in bytes."""

    def __init__(self, redis: RedisClient, *, shard: int) -> None:
        self.name = usage_stream(shard)
        self._redis = redis
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    async def read(self, *, count: int, wait_ms: int) -> Entries:
        """Return up to `count` entries that nobody was given, after `wait_ms` at the latest.

        Raises:
            GroupMissingError.
        """
        with _group_wanted():
            answer = await self._redis.xreadgroup(
                COLLECTOR_GROUP, self._consumer, {self.name: ">"}, count=count, block=wait_ms
            )
        return _entries(answer)

    async def claim(self, *, count: int, idle_ms: int) -> Entries:
        """Take over up to `count` entries that were given to somebody at least `idle_ms` ago.

        Raises:
            GroupMissingError.
        """
        with _group_wanted():
            answer = await self._redis.xautoclaim(
                self.name, COLLECTOR_GROUP, self._consumer, min_idle_time=idle_ms, count=count
            )
        return cast("Entries", answer[1])

    async def make_group(self) -> None:
        """Make the group that reads from the first entry on; another may have been faster."""
        with contextlib.suppress(ResponseError):
            await self._redis.xgroup_create(self.name, COLLECTOR_GROUP, id="0", mkstream=True)

    async def pending_up_to_last(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return which entries up to the last of these were given to anybody, one more than these at most.

        Raises:
            GroupMissingError.
        """
        with _group_wanted():
            pending = await self._redis.xpending_range(
                self.name, COLLECTOR_GROUP, min="-", max=last_id(ids), count=len(set(ids)) + 1
            )
        return {cast("bytes", row["message_id"]) for row in pending}

    async def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Acknowledge and delete entries."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xack(self.name, COLLECTOR_GROUP, *ids)
            pipeline.xdel(self.name, *ids)
            await pipeline.execute()

    async def length(self) -> int:
        return int(await self._redis.xlen(self.name))


@contextlib.contextmanager
def _group_wanted() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        if _is_group_missing(error):
            raise GroupMissingError from error
        raise


def _entries(answer: Any) -> Entries:
    """Return the entries of one stream; RESP3 answers with a mapping, RESP2 with pairs."""
    if not answer:
        return []
    streams = answer.values() if isinstance(answer, dict) else [found for _, found in answer]
    entries: Entries = []
    for found in streams:
        # RESP3 clients differ in whether they wrap the list once more
        flat = found[0] if found and isinstance(found[0], list) else found
        entries += flat
    return entries


def _is_group_missing(error: RedisError) -> bool:
    return str(error).startswith("NOGROUP")
