"""Usage as it runs inside a server process: collectors, aggregator and sealer, each with its own connections."""

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.redis import RedisClient, create_redis
from control_plane.foundation.rounds import Pauses
from control_plane.usage import metrics
from control_plane.usage.collect.catalog import CatalogWatch
from control_plane.usage.collect.collector import Collector, CollectorConfig
from control_plane.usage.collect.enrichment import AccountCache
from control_plane.usage.collect.source import UsageSource
from control_plane.usage.collect.storing import EventWriter
from control_plane.usage.collect.stream import StreamSource
from control_plane.usage.completeness.worker import CheckConfig, run_completeness
from control_plane.usage.daily.retention import HourlyRetentionConfig, run_hourly_retention
from control_plane.usage.daily.rollup import DailyConfig, run_daily_rollups
from control_plane.usage.extra_units import EXTRA_UNITS
from control_plane.usage.meters.hourly import derive_meters
from control_plane.usage.meters.periods import run_meter_periods
from control_plane.usage.meters.workers import MetersConfig, run_meter_backfills
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.rollups.aggregator import AggregatorConfig, run_aggregator
from control_plane.usage.rollups.derived import Derive
from control_plane.usage.rollups.pace import Lane
from control_plane.usage.rollups.sealing import SealingConfig, run_sealer
from control_plane.usage.store import EventStore, EventStoreConfig
from gateway_contract.kafka import KafkaAddress

log = structlog.get_logger(__name__)

DERIVED: tuple[Derive, ...] = (derive_meters,)
"""What the aggregator derives from recomputed hours, in this order."""

REDIS_TIMEOUT_SECONDS = 10.0
READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class UsageConfig:
    """Everything the usage workers need. `gateway_secrets`: see `gateway_contract.receipts.parse_secrets`.

    With `kafka`, usage is collected from there as well as from Redis: shippers change over one by one.
    """

    redis_url: str
    event_store: EventStoreConfig
    gateway_secrets: tuple[bytes, ...] = field(repr=False)
    shards: int = 1
    kafka: KafkaAddress | None = None
    collector: CollectorConfig = field(default_factory=CollectorConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    sealing: SealingConfig = field(default_factory=SealingConfig)
    checks: CheckConfig = field(default_factory=CheckConfig)
    daily: DailyConfig = field(default_factory=DailyConfig)
    hourly_retention: HourlyRetentionConfig = field(default_factory=HourlyRetentionConfig)
    event_retention_days: int = MINIMUM_DAYS
    meters: MetersConfig = field(default_factory=MetersConfig)


async def run_collector(
    *,
    config: UsageConfig,
    sessions: async_sessionmaker[AsyncSession],
    catalog: CatalogWatch,
    open_source: Callable[[RedisClient], UsageSource],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Collect one source until `stop`, with a Redis connection and an event store client of its own."""
    store = await open_store_patiently(config.event_store, stop=stop, max_threads=1)
    if store is None:
        return
    redis = create_redis(
        config.redis_url,
        timeout_seconds=config.collector.wait_seconds + REDIS_TIMEOUT_SECONDS,
        decode_responses=False,
        read_bytes=READ_BYTES,
    )
    source = open_source(redis)
    collector = Collector(
        config=config.collector,
        source=source,
        sessions=sessions,
        writer=EventWriter(store=store, attribution=catalog.attribution, kept=catalog.kept),
        clock=clock,
        refresh_catalog=catalog.refresh,
        accounts=AccountCache(redis),
    )
    try:
        await collector.run(stop)
    finally:
        await source.aclose()
        await redis.aclose()
        await asyncio.to_thread(store.close)


def sources(config: UsageConfig) -> list[Callable[[RedisClient], UsageSource]]:
    """Return what opens each source of this process: every shard of Redis, and Kafka where it is used.

    Raises:
        KafkaAddressError: of the function for Kafka.
    """
    shards, kafka = config.shards, config.kafka
    found: list[Callable[[RedisClient], UsageSource]] = [
        partial(StreamSource, shard=shard, shards=shards) for shard in range(shards)
    ]
    if kafka is not None:
        # imported where it is wanted: aiokafka is an extra
        kafka_source = importlib.import_module("control_plane.usage.collect.kafka_source")
        found.append(lambda redis: kafka_source.KafkaSource(address=kafka, redis=redis, shards=shards))
    return found


async def open_store_patiently(
    config: EventStoreConfig, *, stop: asyncio.Event, max_threads: int | None = None
) -> EventStore | None:
    """Open the event store as soon as it can be; None if `stop` comes first."""
    pauses = Pauses(stop)
    while not stop.is_set():
        try:
            return await asyncio.to_thread(EventStore.open, config, max_threads=max_threads)
        except Exception as error:  # noqa: BLE001 - a server that is not up yet may come up
            metrics.FAILURES.labels("store", "open").inc()
            log.warning("the event store cannot be opened", error=repr(error))
            await pauses.wait()
    return None


async def run_usage_workers(
    *,
    config: UsageConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Run all of usage until `stop`: one collector a source, one aggregator, one sealer, and what keeps days.

    Any number of processes may run this with a ClickHouse server; with the embedded store, one. Failures of any
    store are waited out. Returns when every batch in hand is finished or left to be delivered again.
    """
    catalog = CatalogWatch(
        secrets=config.gateway_secrets, sessions=sessions, event_retention_days=config.event_retention_days
    )
    async with asyncio.TaskGroup() as tasks:
        for open_source in sources(config):
            tasks.create_task(
                run_collector(
                    config=config,
                    sessions=sessions,
                    catalog=catalog,
                    open_source=open_source,
                    stop=stop,
                    clock=clock,
                )
            )
        tasks.create_task(_run_completeness(config=config, sessions=sessions, stop=stop, clock=clock))
        tasks.create_task(_run_meter_periods(config=config, sessions=sessions, stop=stop, clock=clock))
        tasks.create_task(_run_meter_backfills(config=config, sessions=sessions, stop=stop, clock=clock))
        for lane in (Lane.LIGHT, Lane.HEAVY):
            tasks.create_task(_run_aggregator(lane, config=config, sessions=sessions, stop=stop, clock=clock))
        tasks.create_task(
            run_sealer(config=config.sealing, sessions=sessions, stop=stop, extra_units=EXTRA_UNITS, clock=clock)
        )
        tasks.create_task(run_daily_rollups(config=config.daily, sessions=sessions, stop=stop, clock=clock))
        tasks.create_task(
            run_hourly_retention(config=config.hourly_retention, sessions=sessions, stop=stop, clock=clock)
        )


async def _run_completeness(
    *,
    config: UsageConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime],
) -> None:
    store = await open_store_patiently(config.event_store, stop=stop)
    if store is None:
        return
    checks = replace(config.checks, lateness=config.sealing.lateness)
    try:
        await run_completeness(
            config=checks, sessions=sessions, store=store, redis_url=config.redis_url, stop=stop, clock=clock
        )
    finally:
        await asyncio.to_thread(store.close)


async def _run_aggregator(
    lane: Lane,
    *,
    config: UsageConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime],
) -> None:
    store = await open_store_patiently(config.event_store, stop=stop)
    if store is None:
        return
    try:
        await run_aggregator(
            config=replace(
                config.aggregator,
                lane=lane,
                pace=replace(config.aggregator.pace, lateness=config.sealing.lateness),
            ),
            sessions=sessions,
            store=store,
            stop=stop,
            derive=DERIVED,
            clock=clock,
        )
    finally:
        await asyncio.to_thread(store.close)


async def _run_meter_periods(
    *,
    config: UsageConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime],
) -> None:
    store = await open_store_patiently(config.event_store, stop=stop, max_threads=1)
    if store is None:
        return
    try:
        await run_meter_periods(
            config=config.meters.periods, sessions=sessions, store=store, stop=stop, clock=clock
        )
    finally:
        await asyncio.to_thread(store.close)


async def _run_meter_backfills(
    *,
    config: UsageConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime],
) -> None:
    store = await open_store_patiently(config.event_store, stop=stop, max_threads=1)
    if store is None:
        return
    try:
        await run_meter_backfills(config=config.meters, sessions=sessions, store=store, stop=stop, clock=clock)
    finally:
        await asyncio.to_thread(store.close)
