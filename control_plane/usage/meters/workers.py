"""Backfills as they run inside a server process, and what replaced meters leave behind."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.meters.backfills import BackfillStep, take_backfill_step
from control_plane.usage.meters.metrics import BACKFILLED_HOURS, REPLACED_FORGOTTEN
from control_plane.usage.meters.periods import PeriodsConfig
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.store import EventStore

log = structlog.get_logger(__name__)

FORGET_EVERY = timedelta(hours=1)
# one look into the index for each meter that has values, however many values there are
_FORGET = text("""
WITH RECURSIVE known AS (
    (SELECT meter_id FROM meter_hourly ORDER BY meter_id LIMIT 1)
    UNION ALL
    SELECT (SELECT meter_id FROM meter_hourly WHERE meter_id > known.meter_id ORDER BY meter_id LIMIT 1)
    FROM known WHERE known.meter_id IS NOT NULL
)
DELETE FROM meter_hourly WHERE (account_id, hour, phase_id, meter_id) IN (
    SELECT account_id, hour, phase_id, meter_id FROM meter_hourly
    WHERE meter_id IN (
        SELECT meter_id FROM known WHERE meter_id IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM meters WHERE meters.id = known.meter_id)
    )
    LIMIT :limit
)
""")
_FORGET_PERIODS = text("""
DELETE FROM meter_periods WHERE NOT EXISTS (SELECT 1 FROM meters WHERE meters.id = meter_periods.meter_id)
""")


@dataclass(frozen=True, slots=True)
class MetersConfig:
    """`hours_per_step` in one transaction; after each step backfilling rests `rest_factor` times as long.

    `kept_days`: the shortest time that any event in the store may have been stored for.
    """

    periods: PeriodsConfig = field(default_factory=PeriodsConfig)
    hours_per_step: int = 200
    look_seconds: float = 2.0
    rest_factor: float = 1.0
    kept_days: int = MINIMUM_DAYS


async def run_meter_backfills(
    *,
    config: MetersConfig,
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Work off backfills until `stop`, one step after another, and drop what replaced meters have left.

    Any number of processes may run this. Failures are counted, logged and tried again.
    """
    forget_at: datetime | None = None

    async def one_round() -> float:
        nonlocal forget_at
        started = time.monotonic()
        if forget_at is None or clock() >= forget_at:
            async with sessions() as session, session.begin():
                REPLACED_FORGOTTEN.inc(await forget_replaced(session))
            forget_at = clock() + FORGET_EVERY
        step = await _step(sessions, store, config, clock())
        return config.look_seconds if step is None else (time.monotonic() - started) * config.rest_factor

    failures = metrics.FAILURES.labels("meter_backfills", "count")
    await repeat("meter-backfills", one_round, stop=stop, failures=failures)


async def _step(
    sessions: async_sessionmaker[AsyncSession], store: EventStore, config: MetersConfig, now: datetime
) -> BackfillStep | None:
    async with sessions() as session, session.begin():
        step = await take_backfill_step(
            session, store, now=now, hours=config.hours_per_step, kept_days=config.kept_days
        )
    if step is not None:
        BACKFILLED_HOURS.labels("yes").inc(step.hours)
        BACKFILLED_HOURS.labels("no").inc(step.skipped)
        if step.is_done:
            log.info("counted stored events for a meter", backfill_id=step.backfill_id)
    return step


async def forget_replaced(session: AsyncSession, *, limit: int = 10_000) -> int:
    """Drop up to `limit` hourly values of meters that are no more, and their periods; returns how many values."""
    await session.execute(_FORGET_PERIODS)
    found = await session.execute(_FORGET, {"limit": limit})
    return found.rowcount  # type: ignore[attr-defined, no-any-return]
