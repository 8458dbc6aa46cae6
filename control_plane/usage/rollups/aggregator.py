"""The aggregator: every touched hour is read whole from the event store and written whole, never added to.

The row of `usage_hours` is locked before the generation of the touched mark is read, and that before the events
are read. So nobody else recomputes the hour meanwhile, and an event that is not seen has raised the generation
after it was read: the mark stays, and the hour is done again. Hours with replays depend on the hours before them,
too: see `replay_hours`. An hour whose events may have expired is left as it stands: see `past_hours`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms, utc_now
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.hours import hour_arrays
from control_plane.usage.model import HourKey
from control_plane.usage.retention import MINIMUM_DAYS, may_have_expired
from control_plane.usage.rollups import metrics as rollup_metrics
from control_plane.usage.rollups.derived import Derive
from control_plane.usage.rollups.pace import MAY_BE_TAKEN, NO_PACE, Lane, Pace, choice
from control_plane.usage.rollups.recompute import HoursInHand
from control_plane.usage.store import EventStore

log = structlog.get_logger(__name__)

_ANY_MARK = text("SELECT EXISTS (SELECT 1 FROM touched_hours)")
_OPEN_HOURS = text("""
INSERT INTO usage_hours (account_id, hour, revision)
SELECT account_id, hour, 0 FROM (
    SELECT account_id, hour FROM touched_hours AS touched
    WHERE NOT EXISTS (
        SELECT 1 FROM usage_hours AS known
        WHERE known.account_id = touched.account_id AND known.hour = touched.hour)
    ORDER BY touched_at LIMIT :limit
) AS missing
ORDER BY account_id, hour
ON CONFLICT DO NOTHING
""")
_LOCK_HOURS = text(f"""
SELECT known.account_id, known.hour, known.revision
FROM touched_hours AS touched JOIN usage_hours AS known USING (account_id, hour)
WHERE {MAY_BE_TAKEN}
ORDER BY touched.touched_at LIMIT :limit
FOR UPDATE OF known SKIP LOCKED
""")  # noqa: S608 - constants, no input
_READ_GENERATIONS = text("""
SELECT account_id, hour, generation FROM touched_hours
WHERE (account_id, hour) IN (SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])))
""")
# A mark that is locked is being raised at this moment: it is not ours to clear. Marks that were raised meanwhile
# go to the end of the queue, so that a busy hour does not keep the others waiting.
_CLEAR_MARKS = text("""
WITH free AS (
    SELECT touched.account_id, touched.hour, touched.generation = done.generation AS is_done
    FROM touched_hours AS touched
    JOIN unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]), CAST(:generations AS bigint[]))
        AS done (account_id, hour, generation) USING (account_id, hour)
    ORDER BY touched.account_id, touched.hour
    FOR UPDATE OF touched SKIP LOCKED
), cleared AS (
    DELETE FROM touched_hours AS mark USING free
    WHERE free.is_done AND mark.account_id = free.account_id AND mark.hour = free.hour
)
UPDATE touched_hours AS mark SET touched_at = :now
FROM free WHERE NOT free.is_done AND mark.account_id = free.account_id AND mark.hour = free.hour
""")
_PUT_LAST = text(f"""
UPDATE touched_hours AS mark SET touched_at = :now
FROM (
    SELECT touched.account_id, touched.hour
    FROM touched_hours AS touched JOIN usage_hours AS known USING (account_id, hour)
    WHERE {MAY_BE_TAKEN}
    ORDER BY touched.touched_at LIMIT 1
    FOR UPDATE OF touched SKIP LOCKED
) AS first
WHERE mark.account_id = first.account_id AND mark.hour = first.hour
RETURNING mark.account_id, mark.hour
""")  # noqa: S608 - constants, no input
# no mark has this generation: it stays, and goes to the end of the queue
_NEVER = -1


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """Up to `hours_per_pass` hours in one transaction; `pause_seconds` between looks when there is nothing.

    `kept_days`: the shortest time that any event in the store may have been stored for. `lane`: which hours this
    aggregator takes.
    """

    hours_per_pass: int = 200
    pause_seconds: float = 0.25
    kept_days: int = MINIMUM_DAYS
    pace: Pace = field(default_factory=Pace)
    lane: Lane = Lane.ALL


async def aggregate_touched(
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    *,
    now: datetime,
    limit: int = 200,
    derive: Sequence[Derive] = (),
    kept_days: int = MINIMUM_DAYS,
    pace: Pace = NO_PACE,
    lane: Lane = Lane.ALL,
) -> int:
    """Work off up to `limit` touched hours and return how many; hours that others work on are passed over.

    Idempotent. The revision of an hour grows with every change of its figures, which also opens its seal. Each of
    `derive` is called in turn, in the same transaction, once the hours' rows are written (see `derived.Derive`).
    An hour whose events may have expired (`kept_days`: see AggregatorConfig) is not recomputed: its figures stand,
    but for amendments. Hours that rest by `pace`, and those of another `lane`, keep their marks.
    """
    async with sessions() as session, session.begin():
        if not await session.scalar(_ANY_MARK):
            return 0
        await session.execute(_OPEN_HOURS, {"limit": limit})
    async with sessions() as session, session.begin():
        locked = await session.execute(_LOCK_HOURS, {"limit": limit, **choice(pace, lane, now)})
        revisions = {HourKey(account_id, to_ms(hour)): revision for account_id, hour, revision in locked}
        hours = sorted(revisions)
        generations = {
            HourKey(account_id, to_ms(hour)): generation
            for account_id, hour, generation in await session.execute(_READ_GENERATIONS, hour_arrays(hours))
        }
        hours = [key for key in hours if key in generations]  # another worker was done with it just now
        if not hours:
            return 0
        work = HoursInHand(session, store, derive, revisions, pace, now)
        past = [key for key in hours if may_have_expired(key.hour_ms, now, kept_days=kept_days)]
        waiting = await work.redo(sorted(set(hours).difference(past)), past)
        # after the touching, which may wait for others' marks; this waits for nobody
        done = [_NEVER if key in waiting else generations[key] for key in hours]
        await session.execute(_CLEAR_MARKS, {**hour_arrays(hours), "generations": done, "now": now})
    return len(hours)


async def run_aggregator(
    *,
    config: AggregatorConfig,
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    stop: asyncio.Event,
    derive: Sequence[Derive] = (),
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Keep the rollups up to date until `stop`. Failures are counted, logged and tried again.

    After a failure fewer hours are taken at once, and one that fails alone goes to the end of the queue: an hour
    too large for a query, or spoiled, holds up no other for long.
    """
    reported = 0.0
    limit = config.hours_per_pass

    async def recompute() -> float:
        nonlocal limit, reported
        if limit == 0:
            await _put_first_last(sessions, config, clock())
            limit = 1
        started = time.monotonic()
        done = await aggregate_touched(
            sessions,
            store,
            now=clock(),
            limit=limit,
            derive=derive,
            kept_days=config.kept_days,
            pace=config.pace,
            lane=config.lane,
        )
        if done:
            rollup_metrics.RECOMPUTE_SECONDS.labels(config.lane.value).observe(time.monotonic() - started)
        if time.monotonic() - reported > 1.0:
            reported = time.monotonic()
            async with sessions() as session:
                metrics.HOURS_TOUCHED.set(await session.scalar(text("SELECT count(*) FROM touched_hours")) or 0)
        taken, limit = limit, min(config.hours_per_pass, limit * 2)
        return config.pause_seconds if done < taken else 0

    async def one_round() -> float:
        nonlocal limit
        try:
            return await recompute()
        except Exception:
            log.warning("fewer hours are recomputed at once", hours_at_once=limit)
            limit //= 2
            raise

    await repeat("aggregator", one_round, stop=stop, failures=metrics.FAILURES.labels("aggregator", "recompute"))


async def _put_first_last(
    sessions: async_sessionmaker[AsyncSession], config: AggregatorConfig, now: datetime
) -> None:
    async with sessions() as session, session.begin():
        for account_id, hour in await session.execute(_PUT_LAST, choice(config.pace, config.lane, now)):
            log.error("an hour cannot be recomputed; others go first", account_id=account_id, hour=str(hour))
