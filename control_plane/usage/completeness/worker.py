"""The loop that counts and checks hours, and makes the digests of those that are sealed."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_hour, from_ms, utc_now
from control_plane.foundation.redis import RedisClient, create_redis
from control_plane.foundation.rounds import repeat
from control_plane.foundation.sole_worker import sole_worker
from control_plane.usage import metrics as usage_metrics
from control_plane.usage.completeness import metrics, queries
from control_plane.usage.completeness.checking import check_hours, note_failure
from control_plane.usage.completeness.counting import count_ended_hours
from control_plane.usage.completeness.due import (
    DueHour,
    due_hours,
    sample_hours,
    sealed_hours,
    shipped_until,
    unheard_hours,
)
from control_plane.usage.completeness.tables import CompletenessRun
from control_plane.usage.digests.making import make_digests
from control_plane.usage.retention import countable_from_ms
from control_plane.usage.store import EventStore

log = structlog.get_logger(__name__)

# any fixed number: holders of this PostgreSQL lock check, one at a time
CHECK_LOCK = 0x6B6D_6368
SAMPLE_EVERY = timedelta(hours=1)
# so long counters stand in Redis, and with them what can be said anew
CHECKED_DAYS = timedelta(days=35)
KEEP_RESULTS = timedelta(days=400)
FORGET_AT_ONCE = 5000

_FORGET = text("""
DELETE FROM usage_completeness WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usage_completeness WHERE hour < :before LIMIT :limit))
""")
_FORGET_CHECKS = text("""
DELETE FROM usage_hour_checks WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usage_hour_checks WHERE hour < :before LIMIT :limit))
""")


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """`lateness` as in sealing. Up to `hours_per_round` hours at once; `pause_seconds` between looks."""

    lateness: timedelta = timedelta(seconds=120)
    hours_per_round: int = 100
    pause_seconds: float = 5.0
    gauges_seconds: float = 60.0


class CompletenessWorker:
    """Rounds of counting and checking. What fails alone is put off; the others go on."""

    def __init__(
        self,
        *,
        config: CheckConfig,
        sessions: async_sessionmaker[AsyncSession],
        store: EventStore,
        client: RedisClient,
        chance: random.Random | None = None,
    ) -> None:
        """`chance` draws the hours that are looked at again though they were found in order."""
        self._config = config
        self._sessions = sessions
        self._store = store
        self._client = client
        self._chance = chance or random.Random()  # noqa: S311 - a sample, not a secret
        self._limit = config.hours_per_round
        self._gauges_at = 0.0

    async def run_round(self, *, now: datetime) -> int:
        """Make digests, keep what counters say of ended hours, and check what is due.

        Returns how many hours were worked on.
        """
        made = await self._digest(now)
        counted = await count_ended_hours(self._sessions, self._client, now=now)
        metrics.COUNTED_HOURS.inc(counted)
        sealed, due = await self._due(now)
        checked = await self._check([*sealed, *due], now)
        if checked == len(sealed) + len(due):
            await self._note(sealed, now)
        await self._tell(now)
        return checked + made

    async def _digest(self, now: datetime) -> int:
        async with self._sessions() as session:
            run = await session.get(CompletenessRun, 1)
        since = run.digested_until if run else None
        found = await make_digests(self._sessions, self._store, since=since, now=now)
        if found.sealed_until != since:
            await self._write(digested_until=found.sealed_until)
        return found.made

    async def _write(self, **values: datetime) -> None:
        async with self._sessions() as session, session.begin():
            await session.execute(update(CompletenessRun).where(CompletenessRun.id == 1).values(**values))

    async def _due(self, now: datetime) -> tuple[list[DueHour], list[DueHour]]:
        limit = self._limit
        oldest = max(floor_hour(now - CHECKED_DAYS), from_ms(countable_from_ms(now)))
        async with self._sessions() as session, session.begin():
            run = await session.get(CompletenessRun, 1)
            if run is not None and (run.sampled_at is None or run.sampled_at <= now - SAMPLE_EVERY):
                await sample_hours(session, now=now, chance=self._chance)
                run.sampled_at = now
            since = run.checked_until if run and run.checked_until else oldest
            sealed = list(await sealed_hours(session, since=since, oldest=oldest, now=now, limit=limit))
            until = await shipped_until(session, lateness=self._config.lateness, now=now)
            found = list(await due_hours(session, oldest=oldest, now=now, limit=limit))
            found += await unheard_hours(session, oldest=oldest, shipped_until=until, limit=limit)
        known = {hour.key for hour in sealed}
        others = {hour.key: hour for hour in found if hour.key not in known}
        return sealed, list(others.values())

    async def _check(self, hours: Sequence[DueHour], now: datetime) -> int:
        """Check hours in pieces; one that fails alone is put off. Other failures come out when all fail alike."""
        done = 0
        while done < len(hours):
            piece = hours[done : done + self._limit]
            try:
                await check_hours(self._sessions, self._store, self._client, piece, now=now)
            except Exception as error:
                usage_metrics.FAILURES.labels("completeness", "check").inc()
                if self._limit > 1:
                    self._limit //= 2
                    raise
                log.error(  # noqa: TRY400 - one line says what the others' logs say
                    "an hour cannot be checked; others go first", hour=piece[0].key, error=repr(error)
                )
                await note_failure(self._sessions, piece[0], now=now)
            done += len(piece)
        self._limit = min(self._config.hours_per_round, self._limit * 2)
        return done

    async def _note(self, sealed: Sequence[DueHour], now: datetime) -> None:
        moments = [hour.sealed_at for hour in sealed if hour.sealed_at is not None]
        values: dict[str, datetime] = {"checked_at": now}
        if moments:
            values["checked_until"] = max(moments)
        await self._write(**values)

    async def _tell(self, now: datetime) -> None:
        metrics.LAST_RUN.set(now.timestamp())
        if time.monotonic() < self._gauges_at:
            return
        self._gauges_at = time.monotonic() + self._config.gauges_seconds
        async with self._sessions() as session, session.begin():
            found = await queries.what_is_wrong(session, since=now - CHECKED_DAYS)
            for forget in (_FORGET, _FORGET_CHECKS):
                await session.execute(forget, {"before": now - KEEP_RESULTS, "limit": FORGET_AT_ONCE})
        metrics.MISSING_CALLS.set(found.missing_calls)
        metrics.DIFFERING_HOURS.set(found.differing_hours)
        metrics.UNSETTLED_HOURS.set(found.wrongly_settled_hours)
        for state, hours in found.hours_by_state.items():
            metrics.INCOMPLETE_HOURS.labels(state).set(hours)


async def run_completeness(
    *,
    config: CheckConfig,
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    redis_url: str,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Check hours and make digests until `stop`. Failures are counted, logged and tried again.

    Any number of processes may run this; one of them works.
    """
    client = create_redis(redis_url)
    worker = CompletenessWorker(config=config, sessions=sessions, store=store, client=client)

    async def one_round() -> float:
        checked = 0
        async with sole_worker(sessions, CHECK_LOCK) as mine:
            if mine:
                checked = await worker.run_round(now=clock())
        return 0 if checked else config.pause_seconds

    failures = usage_metrics.FAILURES.labels("completeness", "round")
    try:
        await repeat("completeness", one_round, stop=stop, failures=failures)
    finally:
        await client.aclose()
