"""Unique values by billing period: counted from stored events, since hours of them do not add up.

A period is touched with its hours (see `period_states`), in the transaction that writes them. Here the generation
is read before the events, and what was counted is noted for that generation: an event that was not seen has raised
it, and the period is done again. One at a time works on a period, under an advisory lock. Hours of a period that
is over are sealed only once it is up to date (see `rollups.sealing`).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms, utc_now
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.meters.metrics import PERIODS_COUNTED, PERIODS_PENDING, PERIODS_STANDING
from control_plane.usage.meters.tables import MeterPeriodState
from control_plane.usage.meters.unique_values import DuePeriod, is_of, write_unique_values
from control_plane.usage.retention import MINIMUM_DAYS, may_have_expired
from control_plane.usage.store import EventStore

log = structlog.get_logger(__name__)

_LOCK = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('km meters ' || :subscription_id || ' ' || :start, 0))"
)
AFTER_FAILURE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class PeriodsConfig:
    """How often a running period is counted: never sooner than `shortest_pause_seconds` after the last time.

    A period that took long rests `pause_factor` times as long, at most `longest_pause_seconds`. `kept_days`: the
    shortest time that any event in the store may have been stored for.
    """

    periods_per_pass: int = 50
    look_seconds: float = 1.0
    shortest_pause_seconds: float = 10.0
    longest_pause_seconds: float = 900.0
    pause_factor: float = 20.0
    kept_days: int = MINIMUM_DAYS

    def pause(self, took_seconds: float) -> timedelta:
        wanted = max(self.shortest_pause_seconds, took_seconds * self.pause_factor)
        return timedelta(seconds=min(self.longest_pause_seconds, wanted))


async def count_due_periods(
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    *,
    now: datetime,
    config: PeriodsConfig | None = None,
) -> int:
    """Count periods that are due, each in a transaction of its own; returns how many. Idempotent.

    A failure is raised at the end: the others are done before, and the one that failed is put off for a minute.
    """
    config = config or PeriodsConfig()
    done, failure = 0, None
    for period in await _due(sessions, now=now, limit=config.periods_per_pass):
        try:
            async with sessions() as session, session.begin():
                done += await _count(session, store, period, now=now, config=config)
        except Exception as error:  # noqa: BLE001 - raised below, once the others are done
            log.warning("a period of unique meters cannot be counted", subscription_id=period.subscription_id)
            failure = error
            await _put_off(sessions, period, now + AFTER_FAILURE)
    if failure is not None:
        raise failure
    return done


async def run_meter_periods(
    *,
    config: PeriodsConfig,
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Keep unique values of billing periods up to date until `stop`. Failures are counted, logged, tried again."""

    async def one_round() -> float:
        done = await count_due_periods(sessions, store, now=clock(), config=config)
        async with sessions() as session:
            PERIODS_PENDING.set(await session.scalar(_PENDING) or 0)
        return config.look_seconds if done < config.periods_per_pass else 0

    await repeat("meter-periods", one_round, stop=stop, failures=metrics.FAILURES.labels("meter_periods", "count"))


_BEHIND = MeterPeriodState.counted_generation < MeterPeriodState.generation
_PENDING = select(func.count()).select_from(MeterPeriodState).where(_BEHIND)


async def _due(sessions: async_sessionmaker[AsyncSession], *, now: datetime, limit: int) -> list[DuePeriod]:
    statement = (
        select(
            MeterPeriodState.subscription_id,
            MeterPeriodState.account_id,
            MeterPeriodState.period_start,
            MeterPeriodState.period_end,
        )
        .where(_BEHIND, MeterPeriodState.due_at <= now)
        .order_by(MeterPeriodState.due_at)
        .limit(limit)
    )
    async with sessions() as session:
        return [DuePeriod(*row) for row in await session.execute(statement)]


async def _count(
    session: AsyncSession, store: EventStore, period: DuePeriod, *, now: datetime, config: PeriodsConfig
) -> bool:
    """Count one period, unless another worker is at it or was done with it just now."""
    names = {"subscription_id": period.subscription_id, "start": period.start.isoformat()}
    if not await session.scalar(_LOCK, names):
        return False
    generation = await session.scalar(
        select(MeterPeriodState.generation).where(is_of(MeterPeriodState, period), _BEHIND)
    )
    if generation is None:
        return False
    started = time.monotonic()
    if may_have_expired(to_ms(period.start), now, kept_days=config.kept_days):
        PERIODS_STANDING.inc()
        log.error(
            "a period of unique meters was touched whose events may have expired; its values stand",
            subscription_id=period.subscription_id,
            period_start=period.start.isoformat(),
        )
    else:
        await write_unique_values(session, store, period)
        PERIODS_COUNTED.inc()
    rests_until = min(now + config.pause(time.monotonic() - started), max(period.end, now))
    await session.execute(
        update(MeterPeriodState)
        .where(is_of(MeterPeriodState, period))
        .values(counted_generation=generation, counted_at=now, due_at=rests_until)
    )
    return True


async def _put_off(sessions: async_sessionmaker[AsyncSession], period: DuePeriod, until: datetime) -> None:
    async with sessions() as session, session.begin():
        await session.execute(update(MeterPeriodState).where(is_of(MeterPeriodState, period)).values(due_at=until))
