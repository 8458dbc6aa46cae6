"""The projector's loops: changes, settlements, sweeps, tidying up, and the listener that wakes the first two."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import cast

import psycopg
import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.foundation.clock import utc_now
from control_plane.foundation.db import create_engine, session_factory
from control_plane.foundation.outbox import CHANNEL, OutboxRow, Topic, forget_done
from control_plane.foundation.redis import RedisClient, create_redis
from control_plane.foundation.rounds import Wake, repeat
from control_plane.gateway_sync import metrics, projection, settlement
from control_plane.gateway_sync.config import ProjectorConfig
from control_plane.gateway_sync.projection_state import ProjectionState, read_state
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.sweep import SweepInterruptedError, sweep, sweep_lock

log = structlog.get_logger(__name__)

LISTEN_SECONDS = 1.0
NEW_REDIS = "new Redis"
# longer than replication lags behind and a failover takes
LATELY = timedelta(minutes=5)
# news of a week tells what happened; there is a row for every account and hour
KEEP_DONE = timedelta(days=7)
FORGET_AT_ONCE = 5000
FORGET_PAUSE_SECONDS = 60.0


async def run_projector(config: ProjectorConfig, stop: asyncio.Event) -> None:
    """Keep Redis up to date until `stop` is set. Any number of these may run at once.

    Neither PostgreSQL nor Redis need be there when it starts, or stay: it backs off and resumes.
    """
    engine = create_engine(config.database_url, pool_size=5, application_name="km-projector")
    client = create_redis(config.redis_url, timeout_seconds=config.redis_timeout_seconds)
    projector = _Projector(config, engine, client)
    changes, hours, idle = Wake(), Wake(), Wake()
    wakes: dict[str, Wake] = {Topic.KEY_CHANGED: changes, Topic.ACCOUNT_CHANGED: changes, Topic.HOUR_SEALED: hours}

    async def listen() -> float:
        await _listen(config.database_url, wakes, stop)
        return 0.0

    loops: list[tuple[str, Callable[[], Awaitable[float]], Wake]] = [
        ("projection", projector.project, changes),
        ("settlement", projector.settle, hours),
        ("sweep", projector.sweep_when_due, Wake()),
        ("outbox", projector.forget_done, Wake()),
        ("listener", listen, idle),
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for name, one_round, wake in loops:
                failures = metrics.FAILURES.labels(name)
                rounds = repeat(name, one_round, stop=stop, failures=failures, wake=wake)
                group.create_task(rounds, name=f"km-{name}")
    finally:
        await client.aclose()
        await engine.dispose()


class _Projector:
    def __init__(self, config: ProjectorConfig, engine: AsyncEngine, client: RedisClient) -> None:
        self._config = config
        self._engine = engine
        self._client = client
        self._sessions = session_factory(engine)
        self._writer = RecordWriter(client)
        self._swept_since_start = False

    async def project(self) -> float:
        while await projection.project_changes(
            self._sessions, self._writer, public_url=self._config.public_url, now=utc_now()
        ):
            pass
        await self._measure_lag(utc_now())
        return self._config.poll_seconds

    async def settle(self) -> float:
        while await settlement.settle_sealed_hours(self._sessions, self._client, now=utc_now()):
            pass
        return self._config.poll_seconds

    async def sweep_when_due(self) -> float:
        state, now = await read_state(self._client), utc_now()
        reason = self._reason_to_sweep(state, now)
        if reason is not None:
            async with sweep_lock(self._engine, wait=False) as mine:
                if mine:
                    if reason == NEW_REDIS:
                        await self._project_again(now)
                    await self._sweep(reason, restore=not state.complete, now=now)
        return self._config.poll_seconds

    async def forget_done(self) -> float:
        async with self._sessions() as session, session.begin():
            forgotten = await forget_done(session, before=utc_now() - KEEP_DONE, limit=FORGET_AT_ONCE)
        return FORGET_PAUSE_SECONDS if forgotten < FORGET_AT_ONCE else self._config.poll_seconds

    def _reason_to_sweep(self, state: ProjectionState, now: datetime) -> str | None:
        if state.marker is None:
            return "marker missing"
        if not state.complete:
            return NEW_REDIS
        if not self._swept_since_start:
            return "start"
        if (now - state.marker.completed_at).total_seconds() >= self._config.sweep_seconds:
            return "interval"
        return None

    async def _project_again(self, now: datetime) -> None:
        """A server that holds our markers under another name has taken over: what it may lack first of all."""
        again = await projection.project_again(
            self._sessions, self._writer, public_url=self._config.public_url, since=now - LATELY, now=now
        )
        log.warning("another Redis has taken over, or the same was restarted", projected_again=again)

    async def _sweep(self, reason: str, *, restore: bool, now: datetime) -> None:
        try:
            report = await sweep(
                self._sessions, self._client, public_url=self._config.public_url, now=now, restore=restore
            )
        except SweepInterruptedError:
            # the next round sees at once what became of Redis
            metrics.SWEEPS.labels(reason, "interrupted").inc()
            log.warning("a full sweep was interrupted", reason=reason)
            return
        except Exception:
            metrics.SWEEPS.labels(reason, "failed").inc()
            raise
        self._swept_since_start = True
        metrics.SWEEPS.labels(reason, "done").inc()
        metrics.SWEEP_SECONDS.observe(report.seconds)
        log.info(
            "full sweep done",
            reason=reason,
            keys=report.keys,
            accounts=report.accounts,
            counters=report.counters,
            written=report.written,
            seconds=round(report.seconds, 3),
        )

    async def _measure_lag(self, now: datetime) -> None:
        statement = select(func.count(OutboxRow.id), func.min(OutboxRow.created_at)).where(
            OutboxRow.done_at.is_(None), OutboxRow.topic.in_(projection.TOPICS)
        )
        async with self._sessions() as session:
            row = (await session.execute(statement)).one()
        waiting, oldest = cast("tuple[int, datetime | None]", tuple(row))
        metrics.WAITING.set(waiting)
        metrics.LAG.set(0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()))


async def _listen(database_url: str, wakes: Mapping[str, Wake], stop: asyncio.Event) -> None:
    """Wake loops when the outbox gets a row of theirs. A lost connection costs no news: the loops poll as well."""
    dsn = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(f"LISTEN {CHANNEL}")
        while not stop.is_set():
            async for notice in connection.notifies(timeout=LISTEN_SECONDS):
                wake = wakes.get(notice.payload)
                if wake is not None:
                    wake.set()
