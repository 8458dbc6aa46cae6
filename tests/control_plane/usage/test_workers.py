"""All of usage at once, as a server process runs it."""

import asyncio
import time
from datetime import datetime, timedelta

from sqlalchemy import text

from control_plane.foundation.clock import utc_now
from control_plane.usage.collect.collector import CollectorConfig
from control_plane.usage.rollups.sealing import SealingConfig
from control_plane.usage.store import EventStoreConfig
from control_plane.usage.workers import UsageConfig, run_usage_workers

# ruff: noqa: PLR0917 - fixtures are arguments

DEADLINE_SECONDS = 30


async def until(sessions, statement: str, wanted: object) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    found = None
    while time.monotonic() < deadline:
        async with sessions() as session:
            found = await session.scalar(text(statement))
        if found == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{statement}: {found!r}, not {wanted!r}")


class TestUsageWorkers:
    async def test_bring_calls_from_the_stream_to_sealed_hours_and_stop(
        self, gateway, sessions, redis, redis_url, clickhouse_dsn, catalog, secret, noon
    ):
        await catalog.product(endpoints=[{"method": "GET", "path_template": "/weather/v1/current/{city}"}])
        started = utc_now()

        def clock() -> datetime:
            return noon + timedelta(hours=3) + (utc_now() - started)

        config = UsageConfig(
            redis_url=redis_url,
            event_store=EventStoreConfig(dsn=clickhouse_dsn),
            gateway_secrets=(secret,),
            collector=CollectorConfig(wait_seconds=0.1, claim_after_seconds=0.5, housekeeping_seconds=0.5),
            sealing=SealingConfig(pause_seconds=0.1),
        )
        stop = asyncio.Event()
        running = asyncio.create_task(run_usage_workers(config=config, sessions=sessions, stop=stop, clock=clock))
        try:
            await gateway.ship(gateway.calls(20), shipped_up_to=noon + timedelta(hours=2))
            await until(sessions, "SELECT sum(calls)::int FROM usage_hourly", 20)
            await until(sessions, "SELECT count(*)::int FROM outbox WHERE topic = 'hour.sealed'", 1)
            async with sessions() as session:
                endpoint = await session.scalar(text("SELECT endpoint FROM usage_hourly"))
            assert endpoint == "GET /weather/v1/current/{city}"
            await redis.flushall()
            await gateway.ship(gateway.calls(5))
            await until(sessions, "SELECT sum(calls)::int FROM usage_hourly", 25)
            await until(sessions, "SELECT max((payload->>'revision')::int) FROM outbox", 2)
        finally:
            stop.set()
            await asyncio.wait_for(running, DEADLINE_SECONDS)
