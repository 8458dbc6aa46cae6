"""The Redis side: entries of the usage stream, committed positions, and noticing that Redis lost something.

Every failure of Redis, whatever it is, becomes `RedisAwayError`: the spool keeps the lines, so waiting is always
right. Nothing is retried inside a call. An entry whose answer did not come is added again by the caller; the event
id makes its lines count once.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway_contract import redis_names, usage_lines

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0
_SCRIPT = Path(__file__).with_name("ship_entry.lua").read_text(encoding="utf-8")


class RedisAwayError(Exception):
    """Redis did not answer, or answered with an error. Whether the last entry was added is unknown."""


class ServerChangedError(RedisAwayError):
    """Another Redis process answers than the one that was given the epoch; nothing was said to it.

    A replica that took over may know the epoch and not the last entries.
    """


class Refusal(Enum):
    """Why an entry was not added."""

    FULL = "full"
    EPOCH_LOST = "epoch_lost"
    EPOCH_TAKEN = "epoch_taken"


class _OtherServerError(RedisError):
    """Raised inside redis-py's own (re)connection, so that the command is not sent."""


class Fate(Enum):
    """Where an entry that was added, but is not committed, is now."""

    WAITING = "waiting"  # in the stream, not read yet or not acknowledged
    LOST = "lost"  # not in the stream, or acknowledged without a commit
    UNKNOWN = "unknown"  # in the stream, and nobody keeps a reading position there


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stream entry. A heartbeat has no segment, no lines, and start = end = 0."""

    segment: str = ""
    start: int = 0
    end: int = 0
    shipped_up_to_ms: int
    lines: bytes = b""
    dropped: int = 0


class UsageStream:
    """One shipper's view of its stream. For one thread."""

    def __init__(self, *, url: str, shipper_id: str, shards: int) -> None:
        self._shipper_id = shipper_id
        shard = redis_names.usage_shard(shipper_id, shards)
        self.name = redis_names.usage_stream(shard)
        self._epoch_key = redis_names.shipper_epoch(shard, shipper_id)
        self._positions_key = redis_names.shipper_positions(shard, shipper_id)
        self._epoch = ""
        # The run id of the server that was given the epoch, None while none was.
        self._run_id: str | None = None
        self._redis = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=ANSWER_TIMEOUT_SECONDS,
            redis_connect_func=self._connected,
        )
        self._script = self._redis.register_script(_SCRIPT)

    def begin(self) -> dict[str, int]:
        """Take the epoch for this run and return the committed positions (segment -> end offset).

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with _said_as_away():
            self._redis.connection_pool.disconnect()
            self._run_id = None
            epoch = secrets.token_hex(16)
            self._redis.set(self._epoch_key, epoch)
            self._epoch = epoch
            return self._read_positions()

    def add(self, entry: Entry, *, most_entries: int) -> str | Refusal:
        """Add one entry and return its id; or say that there is no room, or that the epoch is not ours any more.

        There is room while the stream, heartbeats included, holds fewer than `most_entries`.

        Raises:
            ServerChangedError: nothing was added.
            RedisAwayError: Redis did not answer.
        """
        fields: list[str | int | bytes] = [
            *(usage_lines.FIELD_SHIPPER, self._shipper_id),
            *(usage_lines.FIELD_SEGMENT, entry.segment),
            *(usage_lines.FIELD_START, entry.start),
            *(usage_lines.FIELD_END, entry.end),
            *(usage_lines.FIELD_SHIPPED_UP_TO_MS, entry.shipped_up_to_ms),
            *(usage_lines.FIELD_DROPPED, entry.dropped),
            *(usage_lines.FIELD_LINES, entry.lines),
        ]
        with _said_as_away():
            answer = cast(
                "list[bytes]",
                self._script(keys=[self.name, self._epoch_key], args=[self._epoch, most_entries, *fields]),
            )
        word = answer[0].decode()
        return answer[1].decode() if word == "added" else Refusal(word)

    def positions(self) -> dict[str, int]:
        """Return the committed positions as the collector published them.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with _said_as_away():
            return self._read_positions()

    def forget(self, segments: list[str]) -> None:
        """Remove published positions of segments that are deleted.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with _said_as_away():
            self._redis.hdel(self._positions_key, *segments)

    def fate(self, entry_id: str) -> Fate:
        """Say where an entry is that should have been committed by now.

        Raises:
            RedisAwayError: Redis did not answer.
        """
        with _said_as_away():
            if not self._redis.xrange(self.name, min=entry_id, max=entry_id, count=1):
                return Fate.LOST
            return self._fate_in_group(entry_id)

    def close(self) -> None:
        self._redis.close()

    def _fate_in_group(self, entry_id: str) -> Fate:
        groups = self._redis.xinfo_groups(self.name)
        ours = [group for group in groups if _text(group["name"]) == redis_names.COLLECTOR_GROUP]
        if not ours:
            return Fate.UNKNOWN
        if _order(_text(ours[0]["last-delivered-id"])) < _order(entry_id):
            return Fate.WAITING
        pending = self._redis.xpending_range(
            self.name, redis_names.COLLECTOR_GROUP, min=entry_id, max=entry_id, count=1
        )
        return Fate.WAITING if pending else Fate.LOST

    def _read_positions(self) -> dict[str, int]:
        found = cast("Mapping[bytes, bytes]", self._redis.hgetall(self._positions_key))
        return {segment.decode(): int(end) for segment, end in found.items()}

    def _connected(self, connection: Any) -> None:
        """Run at every (re)connection, also at those that redis-py makes without telling."""
        connection.on_connect()
        connection.send_command("INFO", "server", check_health=False)
        found = re.search(rb"run_id:(\w+)", connection.read_response())
        run_id = found[1].decode() if found else ""
        if self._run_id is None:
            self._run_id = run_id
        elif self._run_id != run_id:
            raise _OtherServerError("another Redis process answers")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _order(entry_id: str) -> tuple[int, int]:
    at_ms, _, sequence = entry_id.partition("-")
    return int(at_ms), int(sequence or 0)


@contextmanager
def _said_as_away() -> Iterator[None]:
    try:
        yield
    except _OtherServerError as error:
        raise ServerChangedError(str(error)) from error
    except (RedisError, OSError, ValueError) as error:  # ValueError: a position that is no number
        raise RedisAwayError(f"{type(error).__name__}: {error}") from error
