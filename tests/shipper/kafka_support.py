"""Shippers on Kafka, and what tests read of their topics: without a group, since one takes seconds to form."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from gateway_contract.kafka import KafkaAddress, fields_of_message
from kong_plugins.shipper.kafka_topic import KafkaTopic
from kong_plugins.shipper.sink import UsageSink
from tests.shipper.support import Bench, FakeCollector

PARTITIONS = range(4)


class Message(NamedTuple):
    partition: int
    offset: int
    key: bytes
    fields: dict[bytes, bytes]

    def number(self, name: str) -> int:
        return int(self.fields[name.encode()])

    @property
    def epoch(self) -> bytes:
        return self.fields[b"epoch"]


def read_messages(address: KafkaAddress) -> list[Message]:
    """All messages of the topic, in the order of each partition."""
    return asyncio.run(_read_messages(address))


async def _read_messages(address: KafkaAddress) -> list[Message]:
    consumer = AIOKafkaConsumer(
        **address.client_options(), enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(address.topic, number) for number in PARTITIONS]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Message] = []
        while len(found) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    fields = fields_of_message(record.value, record.headers)
                    found.append(Message(record.partition, record.offset, record.key, fields))
        return sorted(found)
    finally:
        await consumer.stop()


def let_the_group_pass(address: KafkaAddress, messages: Sequence[Message]) -> None:
    """Commit offsets behind these messages, as collectors do."""
    asyncio.run(_commit(address, {message.partition: message.offset + 1 for message in messages}))


async def _commit(address: KafkaAddress, ends: dict[int, int]) -> None:
    consumer = AIOKafkaConsumer(**address.client_options(), group_id=address.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(address.topic, number) for number in ends])
        await consumer.commit({TopicPartition(address.topic, number): end for number, end in ends.items()})
    finally:
        await consumer.stop()


class KafkaBench(Bench):
    """A shipper on Kafka in this process, with a clock of its own."""

    def __init__(self, url: str, directory: Path, address: KafkaAddress, **settings: object) -> None:
        self.address = address
        super().__init__(url, directory, **settings)

    def open_sink(self) -> UsageSink:
        return KafkaTopic(address=self.address, redis_url=self.url, shipper_id=self.spool.shipper_id, shards=1)


class FakeKafkaCollector(FakeCollector):
    """Commits to memory what it reads of the topic, and publishes positions in Redis."""

    def __init__(self, url: str, shipper_id: str, address: KafkaAddress) -> None:
        super().__init__(url, shipper_id)
        self.address = address
        self.messages: list[Message] = []

    def pump(self, *, publish: bool = True) -> int:
        found = read_messages(self.address)
        fresh = found[len(self.messages) :]
        for message in fresh:
            self._take(message.fields)
        self.messages = found
        if publish:
            self.publish()
        return len(fresh)
