"""A shipper's side of a Kafka topic, in short, and collectors that read it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from control_plane.foundation.clock import to_ms
from control_plane.usage.collect.collector import Collector
from control_plane.usage.collect.kafka_source import KafkaSource
from gateway_contract import usage_lines
from gateway_contract.kafka import KafkaAddress, message_of_fields
from gateway_contract.redis_names import shipper_epoch
from tests.control_plane.usage.conftest import Gateway

DEADLINE_SECONDS = 30.0


@dataclass
class KafkaGateway(Gateway):
    """Ships to a topic, numbering its messages as the shipper does."""

    address: KafkaAddress = field(default_factory=lambda: KafkaAddress(bootstrap_servers=""))
    producer: Any = None
    epoch: str = "epoch-1"
    number: int = 0
    partition: int = 0
    lose: bool = False

    async def begin(self, epoch: str) -> None:
        """Take a new epoch, as after a start."""
        self.epoch, self.number = epoch, 0
        await self.redis.set(shipper_epoch(0, self.shipper), epoch)

    async def add(
        self,
        *,
        start: int,
        end: int,
        lines: bytes = b"",
        shipped_up_to: datetime | None = None,
        segment: str | None = None,
    ) -> bytes:
        self.number += 1
        value, headers = message_of_fields(
            {
                usage_lines.FIELD_SHIPPER: self.shipper,
                usage_lines.FIELD_SEGMENT: self.segment if segment is None else segment,
                usage_lines.FIELD_START: start,
                usage_lines.FIELD_END: end,
                usage_lines.FIELD_SHIPPED_UP_TO_MS: to_ms(shipped_up_to) if shipped_up_to else 0,
                usage_lines.FIELD_DROPPED: 0,
                usage_lines.FIELD_LINES: lines,
                "epoch": self.epoch,
                "number": self.number,
                "after": self.number - 1,
            }
        )
        if self.lose:  # confirmed, and then lost
            return b""
        await self.producer.send_and_wait(
            self.address.topic, value, key=self.shipper.encode(), headers=headers, partition=self.partition
        )
        return b""


@asynccontextmanager
async def producing(address: KafkaAddress) -> AsyncIterator[Any]:
    producer = AIOKafkaProducer(**address.client_options(), acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def other_topic(address: KafkaAddress, name: str) -> KafkaAddress:
    return replace(address, topic=f"{address.topic}-{name}", group=f"{address.group}-{name}")


async def joined(collector: Collector) -> Collector:
    """Wait until the collector's consumer is in its group, without reading anything."""
    source = collector._source
    assert isinstance(source, KafkaSource)
    await collector.read_batch(wait_seconds=0)  # begins
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while source._consumer is None:
        assert asyncio.get_running_loop().time() < deadline
        await source._connect(wait_seconds=1.0)
    return collector


async def until(condition: Callable[[], Any], *, what: str = "") -> None:
    """Wait for a condition, plain or awaitable."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.05)
