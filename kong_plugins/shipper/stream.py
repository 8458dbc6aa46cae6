"""A Redis stream as sink: its entries, committed positions, and noticing that Redis lost something.

Every failure of Redis, whatever it is, becomes `RedisAwayError`. Nothing is retried inside a call.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import redis
from redis.exceptions import RedisError

from gateway_contract import redis_names
from kong_plugins.shipper.server import OtherServerError, StreamServer
from kong_plugins.shipper.sink import Entry, Fate, Refusal, SinkAwayError, SinkChangedError

_SCRIPT = Path(__file__).with_name("ship_entry.lua").read_text(encoding="utf-8")


class RedisAwayError(SinkAwayError):
    """Redis did not answer, or answered with an error. Whether the last entry was added is unknown."""


class ServerChangedError(RedisAwayError, SinkChangedError):
    """Another Redis process answers than the one that was given the epoch; nothing was said to it.

    A replica that took over may know the epoch and not the last entries.
    """


class UsageStream:
    """One shipper's view of its stream (`sink.UsageSink`). For one thread."""

    kind = "redis"

    def __init__(self, *, url: str, shipper_id: str, shards: int) -> None:
        self._shipper_id = shipper_id
        shard = redis_names.usage_shard(shipper_id, shards)
        self.name = redis_names.usage_stream(shard)
        self._epoch_key = redis_names.shipper_epoch(shard, shipper_id)
        self._positions_key = redis_names.shipper_positions(shard, shipper_id)
        self._epoch = ""
        self._server = StreamServer(url, stream=self.name)

    def begin(self) -> dict[str, int]:
        """Take the epoch for this run and return the committed positions (segment -> end offset).

        Raises:
            RedisAwayError: Redis did not answer.
        """
        self._server.accept_any()
        with self._talking() as server:
            epoch = secrets.token_hex(16)
            server.set(self._epoch_key, epoch)
            self._epoch = epoch
            return self._read_positions(server)

    def add(self, entry: Entry, *, most_entries: int) -> str | Refusal:
        """Add one entry and return its id; or say that there is no room, or that the epoch is not ours any more.

        There is room while the stream, heartbeats included, holds fewer than `most_entries`.

        Raises:
            ServerChangedError: nothing was added.
            RedisAwayError: Redis did not answer.
        """
        fields = [part for field in entry.fields(shipper_id=self._shipper_id).items() for part in field]
        with self._talking() as server:
            script = server.register_script(_SCRIPT)
            answer = cast(
                "list[bytes]",
                script(keys=[self.name, self._epoch_key], args=[self._epoch, most_entries, *fields]),
            )
        word = answer[0].decode()
        return answer[1].decode() if word == "added" else Refusal(word)

    def positions(self) -> dict[str, int]:
        """Return the committed positions as the collector published them.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with self._talking() as server:
            return self._read_positions(server)

    def forget(self, segments: list[str]) -> None:
        """Remove published positions of segments that are deleted.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with self._talking() as server:
            server.hdel(self._positions_key, *segments)

    def fate(self, entry_id: str) -> Fate:
        """Say where an entry is that should have been committed by now.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with self._talking() as server:
            if not server.xrange(self.name, min=entry_id, max=entry_id, count=1):
                return Fate.LOST
            return self._fate_in_group(server, entry_id)

    def close(self) -> None:
        self._server.close()

    def _fate_in_group(self, server: redis.Redis, entry_id: str) -> Fate:
        groups = server.xinfo_groups(self.name)
        ours = [group for group in groups if _text(group["name"]) == redis_names.COLLECTOR_GROUP]
        if not ours:
            return Fate.UNKNOWN
        if _order(_text(ours[0]["last-delivered-id"])) < _order(entry_id):
            return Fate.WAITING
        pending = server.xpending_range(
            self.name, redis_names.COLLECTOR_GROUP, min=entry_id, max=entry_id, count=1
        )
        return Fate.WAITING if pending else Fate.LOST

    def _read_positions(self, server: redis.Redis) -> dict[str, int]:
        found = cast("Mapping[bytes, bytes]", server.hgetall(self._positions_key))
        return {segment.decode(): int(end) for segment, end in found.items()}

    @contextmanager
    def _talking(self) -> Iterator[redis.Redis]:
        """Give the client, and say of everything that goes wrong that Redis is away."""
        try:
            yield self._server.client()
        except OtherServerError as error:
            raise ServerChangedError(str(error)) from error
        except (RedisError, OSError, ValueError) as error:  # ValueError: a position that is no number
            self._server.leave()
            raise RedisAwayError(f"{type(error).__name__}: {error}") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _order(entry_id: str) -> tuple[int, int]:
    at_ms, _, sequence = entry_id.partition("-")
    return int(at_ms), int(sequence or 0)
