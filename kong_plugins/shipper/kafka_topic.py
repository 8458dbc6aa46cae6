"""A Kafka topic as sink: lines go to Kafka; the epoch and the committed positions are in Redis, as ever.

What Kafka lost is found out on the other side: every message says which one was confirmed before it
(`gateway_contract.kafka`), and a collector that misses one deletes this shipper's epoch in Redis. That is seen
with the positions, and everything after them is shipped again under a new epoch.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import redis
from redis.exceptions import RedisError

from gateway_contract import redis_names
from gateway_contract.kafka import FIELD_AFTER, FIELD_EPOCH, FIELD_NUMBER, KafkaAddress, message_of_fields
from kong_plugins.shipper.kafka_client import KafkaClient, KafkaFailedError, MessageTooLargeError
from kong_plugins.shipper.server import OtherServerError, StreamServer
from kong_plugins.shipper.sink import Entry, Fate, PositionsAwayError, Refusal, SinkAwayError


class KafkaAwayError(SinkAwayError):
    store = "kafka"


class KafkaTopic:
    """One shipper's view of its topic (`sink.UsageSink`). For one thread."""

    kind = "kafka"

    def __init__(self, *, address: KafkaAddress, redis_url: str, shipper_id: str, shards: int) -> None:
        """Raises ValueError: one of the addresses makes no sense."""
        self.name = address.topic
        self._shipper_id = shipper_id
        shard = redis_names.usage_shard(shipper_id, shards)
        self._epoch_key = redis_names.shipper_epoch(shard, shipper_id)
        self._positions_key = redis_names.shipper_positions(shard, shipper_id)
        self._server = StreamServer(redis_url, stream=self._positions_key)
        self._kafka = KafkaClient(address)
        self._epoch = ""
        self._number = self._after = 0
        self._refusal: Refusal | None = None
        self._other_redis = False

    def begin(self) -> dict[str, int]:
        """Take a new epoch and return the committed positions.

        Raises:
            PositionsAwayError: Redis did not answer.
        """
        with self._talking() as server:
            epoch = secrets.token_hex(16)
            server.set(self._epoch_key, epoch)
            positions = _positions(cast("Mapping[bytes, bytes]", server.hgetall(self._positions_key)))
        self._epoch, self._number, self._after = epoch, 0, 0
        self._refusal, self._other_redis = None, False
        return positions

    def add(self, entry: Entry, *, most_entries: int) -> str | Refusal:  # noqa: ARG002 - a topic is never full
        """Add one message and return its place, confirmed by the brokers; or say that the epoch is gone.

        Raises:
            KafkaAwayError: Kafka did not confirm it.
        """
        if self._refusal is not None:
            return self._refusal
        self._number += 1
        fields = entry.fields(shipper_id=self._shipper_id)
        fields |= {FIELD_EPOCH: self._epoch, FIELD_NUMBER: self._number, FIELD_AFTER: self._after}
        value, headers = message_of_fields(fields)
        try:
            place = self._kafka.send(key=self._shipper_id.encode(), value=value, headers=headers)
        except MessageTooLargeError:
            return Refusal.TOO_LARGE
        except KafkaFailedError as error:
            raise KafkaAwayError(str(error)) from error
        self._after = self._number
        return f"{place.partition}:{place.offset}"

    def positions(self) -> dict[str, int]:
        """Return the committed positions; a lost epoch is seen, too, and told by the next `add`.

        Raises:
            PositionsAwayError: Redis did not answer; adding goes on.
        """
        with self._talking() as server, server.pipeline(transaction=False) as pipeline:
            pipeline.get(self._epoch_key)
            pipeline.hgetall(self._positions_key)
            epoch, found = pipeline.execute()
        if epoch is None or epoch.decode() != self._epoch:
            # another Redis than the one that was given the epoch may know an earlier one
            lost = epoch is None or self._other_redis
            self._refusal = Refusal.EPOCH_LOST if lost else Refusal.EPOCH_TAKEN
        return _positions(found)

    def forget(self, segments: list[str]) -> None:
        with self._talking() as server:
            server.hdel(self._positions_key, *segments)

    def fate(self, entry_id: str) -> Fate:
        """Say whether a message is still kept and not passed by the collectors' group.

        Raises:
            KafkaAwayError.
        """
        partition, offset = map(int, entry_id.split(":"))
        try:
            state = self._kafka.look(partition)
        except KafkaFailedError as error:
            raise KafkaAwayError(str(error)) from error
        if not state.first <= offset < state.end:
            return Fate.LOST
        if state.committed is None:
            return Fate.UNKNOWN
        return Fate.WAITING if state.committed <= offset else Fate.LOST

    def close(self) -> None:
        self._kafka.close()
        self._server.close()

    @contextmanager
    def _talking(self) -> Iterator[redis.Redis]:
        """Give the client, and say of everything that goes wrong that Redis is away.

        Another Redis than before is as good: it holds nothing of ours but what it says.
        """
        try:
            yield self._server.client()
        except (RedisError, OSError, ValueError) as error:  # ValueError: a position that is no number
            self._other_redis = self._other_redis or isinstance(error, OtherServerError)
            self._server.accept_any()
            raise PositionsAwayError(f"{type(error).__name__}: {error}") from error


def _positions(found: Mapping[bytes, bytes]) -> dict[str, int]:
    return {segment.decode(): int(end) for segment, end in found.items()}
