"""aiokafka for a program without an event loop: one message at a time, in a loop of a thread of its own.

The hand-over is one call deep: whoever sends waits until the brokers have confirmed, so nothing is held in memory,
and an entry is where it should be when `send` returns. Confirmed means by all replicas in sync (acks=all).
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog
from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    TopicPartition,
)
from aiokafka.errors import (  # type: ignore[import-untyped]
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from gateway_contract.kafka import MAX_MESSAGE_BYTES, KafkaAddress

REQUEST_TIMEOUT_MS = 5_000
RETRY_BACKOFF_MS = 50
# aiokafka gives up by itself after its request timeout, several of which may follow each other.
CALL_SECONDS = 20.0
STOP_SECONDS = 5.0

# What it tells there comes to us as exceptions, too, and not twenty times a second.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

log = structlog.get_logger()
T = TypeVar("T")


class KafkaFailedError(Exception):
    """The brokers did not answer, or answered with an error. Whether they have the message is unknown."""


class MessageTooLargeError(Exception):
    """The brokers, or our own limit, allow no message of that size; it was not added."""


class Place(NamedTuple):
    """Where a message is in its topic."""

    partition: int
    offset: int


class PartitionState(NamedTuple):
    """First offset kept, offset of the next message, where the group goes on (None: nowhere yet, or not known)."""

    first: int
    end: int
    committed: int | None


class KafkaClient:
    """Connects at the first call, and anew at the first after a failure. For one thread."""

    def __init__(self, address: KafkaAddress) -> None:
        """Raises KafkaAddressError: the address makes no sense, or a certificate cannot be read."""
        self._address = address
        self._options = address.client_options() | {
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            "client_id": "km-shipper",
        }
        self._producer: Any = None
        self._idempotent = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka", daemon=True)
        self._thread.start()

    def send(self, *, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Place:
        """Add one message and return its place, once all replicas in sync have it.

        Raises:
            MessageTooLargeError: nothing was added.
            KafkaFailedError: it may have been added, or may still be.
        """
        return self._run(self._send(key, value, headers))

    def look(self, partition: int) -> PartitionState:
        """Ask how far a partition reaches, and how far the collectors' group is in it.

        Raises:
            KafkaFailedError.
        """
        return self._run(self._look(TopicPartition(self._address.topic, partition)))

    def close(self) -> None:
        """Harmless when closed already."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(KafkaFailedError):
            self._run(self._drop_producer())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        with contextlib.suppress(RuntimeError):  # what aiokafka left running ends with the loop
            self._loop.run_until_complete(_cancel_all())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        bounded = asyncio.wait_for(work, CALL_SECONDS)
        try:
            return asyncio.run_coroutine_threadsafe(bounded, self._loop).result()
        except MessageTooLargeError:
            raise
        except Exception as error:
            raise KafkaFailedError(f"{type(error).__name__}: {error}") from error

    async def _send(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Place:
        try:
            if self._producer is None:
                self._producer = await self._start_producer()
            sent = await self._producer.send_and_wait(self._address.topic, value, key=key, headers=list(headers))
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            raise MessageTooLargeError from error
        except BaseException:
            # A producer after a failure may hold what it did not send: nothing of that may follow later.
            await self._drop_producer()
            raise
        return Place(sent.partition, sent.offset)

    async def _start_producer(self) -> Any:
        """Start a producer that brokers know again, so that its own retries add nothing twice; where they can."""
        if self._idempotent:
            try:
                return await self._started(AIOKafkaProducer, **self._producer_options(), enable_idempotence=True)
            except (KafkaConnectionError, KafkaTimeoutError):
                raise
            except KafkaError as error:
                log.warning("the brokers know no idempotent producers", error=type(error).__name__)
                self._idempotent = False
        return await self._started(AIOKafkaProducer, **self._producer_options())

    def _producer_options(self) -> dict[str, Any]:
        return self._options | {"acks": "all", "linger_ms": 0, "max_request_size": MAX_MESSAGE_BYTES}

    async def _look(self, partition: Any) -> PartitionState:
        consumer = await self._started(
            AIOKafkaConsumer, **self._options, group_id=self._address.group, enable_auto_commit=False
        )
        try:
            consumer.assign([partition])
            first = await consumer.beginning_offsets([partition])
            end = await consumer.end_offsets([partition])
            committed = await self._committed(consumer, partition)
        finally:
            await _stop(consumer)
        return PartitionState(first[partition], end[partition], committed)

    async def _committed(self, consumer: Any, partition: Any) -> int | None:
        """Return where the group is; None too where we may not know, or its coordinator does not answer."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                found: int | None = await consumer.committed(partition)
        except (KafkaError, TimeoutError) as error:
            log.warning("the collectors' group cannot be asked", group=self._address.group, error=repr(error))
            return None
        return found

    async def _started(self, kind: Any, **options: Any) -> Any:
        client = kind(**options)
        try:
            await client.start()
        except BaseException:
            await _stop(client)
            raise
        return client

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)


async def _stop(client: Any) -> None:
    """Close a client, for a while at most: it may wait for what never comes."""
    with contextlib.suppress(KafkaError, OSError, TimeoutError, asyncio.CancelledError):
        await asyncio.wait_for(client.stop(), STOP_SECONDS)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
