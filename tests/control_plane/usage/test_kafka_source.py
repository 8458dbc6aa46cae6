"""Collectors on a real Kafka broker: every call counts once, whoever dies, and no loss goes unseen."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from control_plane.foundation.clock import to_ms
from control_plane.usage import metrics
from control_plane.usage.collect import kafka_source
from control_plane.usage.collect.collector import Collector, Progress
from control_plane.usage.collect.kafka_source import KafkaSource
from gateway_contract.kafka import KafkaAddress
from gateway_contract.redis_names import shipper_epoch, shipper_positions
from tests.control_plane.usage.kafka_support import KafkaGateway, joined, other_topic, producing, until
from tests.control_plane.usage.test_collector import positions, shipped_up_to

STEPS = ("store", "commit", "publish", "acknowledge", "read")


@pytest.fixture(autouse=True)
def quick_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker lets a group begin after half of this."""
    monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "session_timeout_ms", 2_000)
    monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "heartbeat_interval_ms", 200)


@pytest.fixture
async def producer(kafka_broker: KafkaAddress):
    async with producing(kafka_broker) as found:
        yield found


@pytest.fixture
async def kafka_gateway(kafka_broker: KafkaAddress, redis: Redis, producer):
    gateway = KafkaGateway(redis, address=kafka_broker, producer=producer)
    await gateway.begin("epoch-1")
    return gateway


@pytest.fixture
async def kafka_collector(kafka_broker: KafkaAddress, redis: Redis, make_collector):
    """Makes collectors, each a member of its own in the group; all leave at the end."""
    sources: list[KafkaSource] = []

    def make(*, address: KafkaAddress = kafka_broker, **config: Any) -> Collector:
        sources.append(KafkaSource(address=address, redis=redis))
        return make_collector(source=sources[-1], max_age_seconds=0.2, **config)

    yield make
    for source in sources:
        await source.aclose()


async def work_off(collector: Collector, *, entries: int) -> None:
    """Collect until so many entries were worked off."""
    done = 0
    while done < entries:
        found = await collector.collect(wait_seconds=10)
        assert found
        done += found


async def committed_offsets(address: KafkaAddress) -> dict[int, int | None]:
    consumer = AIOKafkaConsumer(**address.client_options(), group_id=address.group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(address.topic, number) for number in range(4)]
        consumer.assign(partitions)
        return {partition.partition: await consumer.committed(partition) for partition in partitions}
    finally:
        await consumer.stop()


class TestCollecting:
    async def test_what_is_collected_is_stored_published_and_passed(
        self, kafka_gateway, kafka_collector, kafka_broker, store, sessions, redis, noon
    ):
        collector = await joined(kafka_collector())
        await kafka_gateway.ship(kafka_gateway.calls(30))
        await kafka_gateway.ship(kafka_gateway.calls(20, account="acc_2"), shipped_up_to=noon)
        await work_off(collector, entries=2)
        assert store.count_events() == 50
        assert await positions(sessions) == {"seg-1": kafka_gateway.position}
        published = await redis.hgetall(shipper_positions(0, "node_a"))
        assert published == {b"seg-1": str(kafka_gateway.position).encode()}
        assert (await committed_offsets(kafka_broker))[0] == 2
        assert await shipped_up_to(sessions) == to_ms(noon)

        # poison in the middle stops nothing and is kept
        for value, headers in (
            (b"nonsense", []),
            (b"{}", [("shipper", b"\xff")]),
            (None, [("shipper", b"x" * 999)]),
        ):
            await kafka_gateway.producer.send_and_wait(
                kafka_broker.topic, value, key=b"x", headers=headers, partition=0
            )
        await kafka_gateway.ship(kafka_gateway.calls(5), shipped_up_to=noon + timedelta(seconds=1))
        await work_off(collector, entries=4)
        assert store.count_events() == 55
        assert len(store.dead_letters()) == 3
        assert await shipped_up_to(sessions) == to_ms(noon + timedelta(seconds=1))
        assert (await committed_offsets(kafka_broker))[0] == 6

        # what waits is measured, and how old it is
        await kafka_gateway.ship(kafka_gateway.calls(1))
        await kafka_gateway.ship(kafka_gateway.calls(1))
        batch = await collector.read_batch(wait_seconds=10)
        lag = await collector._source.lag(now_ms=to_ms(noon) * 2)
        assert lag.entries == 2
        assert lag.pending == len(batch.ids) > 0
        assert lag.oldest_age_seconds > 0
        await collector._take_steps(Progress(batch, 0.0))
        await work_off(collector, entries=2 - len(batch.ids))
        lag = await collector._source.lag(now_ms=to_ms(noon) * 2)
        assert (lag.entries, lag.pending, lag.oldest_age_seconds) == (0, 0, 0.0)

    async def test_what_brokers_lost_is_asked_for_and_nothing_is_believed_before(
        self, kafka_gateway, kafka_collector, sessions, store, redis, noon
    ):
        gateway, epoch_name = kafka_gateway, shipper_epoch(0, "node_a")
        collector = await joined(kafka_collector())
        gaps = metrics.KAFKA_GAPS._value.get()
        await gateway.ship(gateway.calls(3), shipped_up_to=noon)
        await work_off(collector, entries=1)
        assert await shipped_up_to(sessions) == to_ms(noon)

        # a whole segment is lost: there is no gap in the next one that would tell
        gateway.segment, gateway.position, gateway.lose = "seg-2", 0, True
        lost = gateway.calls(4)
        await gateway.ship(lost)
        gateway.lose = False
        await gateway.heartbeat(noon + timedelta(seconds=5))
        gateway.segment, gateway.position = "seg-3", 0
        await gateway.ship(gateway.calls(2), shipped_up_to=noon + timedelta(seconds=6))
        await work_off(collector, entries=2)
        assert store.count_events() == 5
        assert await shipped_up_to(sessions) == to_ms(noon)
        assert await redis.get(epoch_name) is None
        assert metrics.KAFKA_GAPS._value.get() == gaps + 1

        # the shipper begins anew; what was on its way says nothing yet
        await gateway.begin("epoch-2")
        gateway.segment, gateway.position = "seg-2", 0
        await gateway.ship(lost)
        await gateway.heartbeat(noon + timedelta(seconds=9))
        await work_off(collector, entries=2)
        assert store.count_events() == 9
        assert await shipped_up_to(sessions) == to_ms(noon + timedelta(seconds=9))
        assert await redis.get(epoch_name) == b"epoch-2"
        assert metrics.KAFKA_GAPS._value.get() == gaps + 1

    async def test_redis_emptied_means_that_shippers_begin_anew(
        self, kafka_gateway, kafka_collector, sessions, store, redis, noon
    ):
        collector = await joined(kafka_collector())
        await kafka_gateway.ship(kafka_gateway.calls(3), shipped_up_to=noon)
        await work_off(collector, entries=1)
        await redis.flushall()
        await kafka_gateway.ship(kafka_gateway.calls(3), shipped_up_to=noon + timedelta(seconds=5))
        await work_off(collector, entries=1)
        assert store.count_events() == 6
        assert await shipped_up_to(sessions) == to_ms(noon)
        await collector._housekeep()
        assert await redis.hgetall(shipper_positions(0, "node_a"))


class TestKilled:
    async def test_before_any_step_everything_counts_once(
        self, kafka_broker, kafka_collector, redis, producer, store, sessions, noon, monkeypatch
    ):
        monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "session_timeout_ms", 1_000)
        shipped, gateways, dying = 0, {}, {}
        for number, step in enumerate(STEPS):
            address = other_topic(kafka_broker, step)
            gateways[step] = KafkaGateway(
                redis, shipper=f"node_{step}", address=address, producer=producer, segment=f"seg-{step}"
            )
            gateways[step].numbers = iter(range(1000 * number + 1, 1000 * number + 999))
            await gateways[step].begin("epoch-1")
            dying[step] = kafka_collector(address=address)
        await asyncio.gather(*map(joined, dying.values()))
        for step, collector in dying.items():
            gateway = gateways[step]
            await gateway.ship(gateway.calls(6))
            await gateway.ship(gateway.calls(4), shipped_up_to=noon)
            shipped += 10
            progress = Progress(await collector.read_batch(wait_seconds=10), 0.0)
            assert progress.batch
            for _, take in collector.steps[: STEPS.index(step)]:
                await take(progress)
            await collector._source.aclose()  # with whatever it had in hand

        heirs = {step: kafka_collector(address=gateway.address) for step, gateway in gateways.items()}
        await asyncio.gather(*map(joined, heirs.values()))
        for step, collector in heirs.items():
            await gateways[step].heartbeat(noon + timedelta(seconds=1))
            while await shipped_up_to(sessions, f"node_{step}") != to_ms(noon + timedelta(seconds=1)):
                await work_off(collector, entries=1)
        assert store.count_events() == shipped
        assert await positions(sessions) == {gateway.segment: gateway.position for gateway in gateways.values()}


class TestRebalance:
    async def test_a_batch_in_hand_when_its_partition_goes_to_another_counts_once(
        self, kafka_broker, kafka_collector, redis, producer, store, sessions, noon
    ):
        gateways = []
        for number in range(4):
            gateway = KafkaGateway(redis, shipper=f"node_{number}", segment=f"seg-{number}", partition=number)
            gateway.address, gateway.producer = kafka_broker, producer
            gateway.numbers = iter(range(1000 * number + 1, 1000 * number + 999))
            await gateway.begin("epoch-1")
            gateways.append(gateway)
        one = await joined(kafka_collector())
        for gateway in gateways:
            await gateway.ship(gateway.calls(5), shipped_up_to=noon)
        batch = await one.read_batch(wait_seconds=10)
        while len(batch.ids) < 4:
            for entry_id, fields in await one._source.read(count=10, wait_ms=1000):
                batch.add(entry_id, fields)

        handovers = metrics.KAFKA_HANDOVERS._value.get()
        other = kafka_collector()
        stop = asyncio.Event()
        running = asyncio.create_task(other.run(stop))
        consumer = one._source._consumer
        await until(lambda: 0 < len(consumer.assignment()) < 4, what="shared partitions")
        await one._take_steps(Progress(batch, 0.0))
        assert metrics.KAFKA_HANDOVERS._value.get() == handovers + 1
        for gateway in gateways:
            await gateway.ship(gateway.calls(5), shipped_up_to=noon + timedelta(seconds=1))

        async def all_believed() -> bool:
            await one.collect(wait_seconds=0.1)
            claims = Counter([await shipped_up_to(sessions, gateway.shipper) for gateway in gateways])
            return claims == {to_ms(noon + timedelta(seconds=1)): 4}

        await until(all_believed, what="every claim")
        stop.set()
        await running
        assert store.count_events() == 40
        assert await positions(sessions) == {gateway.segment: gateway.position for gateway in gateways}
