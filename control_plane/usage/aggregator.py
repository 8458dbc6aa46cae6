"""The aggregator: every touched hour is read whole from the event store and written whole, never added to.

The row of `usage_hours` is locked before the generation of the touched mark is read, and that before the events
are read. So nobody else recomputes the hour meanwhile, and an event that is not seen has raised the generation
after it was read: the mark stays, and the hour is done again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Text, cast, delete, func, insert, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms, to_ms, utc_now
from control_plane.foundation.db import UtcDateTime
from control_plane.usage import metrics
from control_plane.usage.loops import Pauses, sleep_unless
from control_plane.usage.model import HourKey
from control_plane.usage.reads import phases_of_hours
from control_plane.usage.rollup import RowKey, RowSums, rollup_rows, split_moments
from control_plane.usage.store import EventStore
from control_plane.usage.tables import UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

log = structlog.get_logger(__name__)

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
_LOCK_HOURS = text("""
SELECT known.account_id, known.hour, known.revision
FROM touched_hours AS touched JOIN usage_hours AS known USING (account_id, hour)
ORDER BY touched.touched_at LIMIT :limit
FOR UPDATE OF known SKIP LOCKED
""")
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
_PUT_LAST = text("""
UPDATE touched_hours AS mark SET touched_at = :now
FROM (SELECT account_id, hour FROM touched_hours ORDER BY touched_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS first
WHERE mark.account_id = first.account_id AND mark.hour = first.hour
RETURNING mark.account_id, mark.hour
""")
_ROW_COLUMNS = (
    "calls",
    "units",
    "billable_calls",
    "billable_units",
    "bytes_in",
    "bytes_out",
    "latency_ms_sum",
    "gateway_ms_sum",
    "dimensions",
    "billable_dimensions",
)


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """Up to `hours_per_pass` hours in one transaction; `pause_seconds` between looks when there is nothing."""

    hours_per_pass: int = 200
    pause_seconds: float = 0.25


async def aggregate_touched(
    sessions: async_sessionmaker[AsyncSession], store: EventStore, *, now: datetime, limit: int = 200
) -> int:
    """Recompute up to `limit` touched hours and return how many; hours that others work on are passed over.

    Idempotent. The revision of an hour grows with every change of its figures, which also opens its seal.
    """
    async with sessions() as session, session.begin():
        await session.execute(_OPEN_HOURS, {"limit": limit})
    async with sessions() as session, session.begin():
        revisions = {
            HourKey(account_id, to_ms(hour)): revision
            for account_id, hour, revision in await session.execute(_LOCK_HOURS, {"limit": limit})
        }
        hours = sorted(revisions)
        names = _names(hours)
        generations = {
            HourKey(account_id, to_ms(hour)): generation
            for account_id, hour, generation in await session.execute(_READ_GENERATIONS, names)
        }
        hours = [key for key in hours if key in generations]  # another worker was done with it just now
        if not hours:
            return 0
        rows = await _recompute(session, store, hours)
        await _write(session, hours, rows, revisions, now)
        await session.execute(
            _CLEAR_MARKS,
            {**_names(hours), "generations": [generations[key] for key in hours], "now": now},
        )
    return len(hours)


async def _recompute(
    session: AsyncSession, store: EventStore, hours: Sequence[HourKey]
) -> dict[HourKey, dict[RowKey, RowSums]]:
    phases = await phases_of_hours(session, hours)
    moments = split_moments(hours, phases)
    whole = [key for key in hours if key.account_id not in moments]
    split = [key for key in hours if key.account_id in moments]
    figures = await asyncio.to_thread(store.hour_figures, whole)
    figures += await asyncio.to_thread(store.hour_figures, split, boundaries=moments)
    return rollup_rows(figures, phases=phases, moments=moments)


async def _write(
    session: AsyncSession,
    hours: Sequence[HourKey],
    rows: Mapping[HourKey, Mapping[RowKey, RowSums]],
    revisions: Mapping[HourKey, int],
    now: datetime,
) -> None:
    """Replace the rows of hours whose figures changed; an hour that came out the same keeps revision and seal."""
    standing = await _standing_rows(session, hours)
    computed = {key: {row: _values(sums) for row, sums in rows.get(key, {}).items()} for key in hours}
    changed = [key for key in hours if computed[key] != standing.get(key, {})]
    unchanged = [key for key in hours if computed[key] == standing.get(key, {})]
    if changed:
        await session.execute(delete(UsageHourly).where(_is_one_of(UsageHourly, changed)))
        new_rows = [
            _row(key, row, values, revisions[key] + 1) for key in changed for row, values in computed[key].items()
        ]
        if new_rows:
            await session.execute(insert(UsageHourly), new_rows)
        await session.execute(
            update(UsageHour)
            .where(_is_one_of(UsageHour, changed))
            .values(revision=UsageHour.revision + 1, aggregated_at=now, sealed_at=None)
            .execution_options(synchronize_session=False)
        )
    if unchanged:
        await session.execute(
            update(UsageHour)
            .where(_is_one_of(UsageHour, unchanged))
            .values(aggregated_at=now)
            .execution_options(synchronize_session=False)
        )
    metrics.HOURS_RECOMPUTED.labels("yes").inc(len(changed))
    metrics.HOURS_RECOMPUTED.labels("no").inc(len(unchanged))


async def _standing_rows(
    session: AsyncSession, hours: Sequence[HourKey]
) -> dict[HourKey, dict[RowKey, dict[str, Any]]]:
    statement = select(
        UsageHourly.account_id,
        UsageHourly.hour,
        UsageHourly.phase_id,
        UsageHourly.product,
        UsageHourly.mode,
        UsageHourly.key_id,
        UsageHourly.endpoint,
        UsageHourly.status,
        UsageHourly.outcome,
        *(getattr(UsageHourly, name) for name in _ROW_COLUMNS),
    ).where(_is_one_of(UsageHourly, hours))
    standing: dict[HourKey, dict[RowKey, dict[str, Any]]] = {}
    for row in await session.execute(statement):
        account_id, hour, phase_id, product, mode, key_id, endpoint, status, outcome, *values = row
        key = RowKey(phase_id, product, Mode(mode), key_id, endpoint, status, Outcome(outcome))
        found = standing.setdefault(HourKey(account_id, to_ms(hour)), {})
        found[key] = dict(zip(_ROW_COLUMNS, values, strict=True))
    return standing


def _values(sums: RowSums) -> dict[str, Any]:
    dimensions = dict(sums.dimensions)
    return {
        "calls": sums.calls,
        "units": sums.units,
        "billable_calls": sums.calls if sums.billable else 0,
        "billable_units": sums.units if sums.billable else 0,
        "bytes_in": sums.bytes_in,
        "bytes_out": sums.bytes_out,
        "latency_ms_sum": sums.latency_ms_sum,
        "gateway_ms_sum": sums.gateway_ms_sum,
        "dimensions": dimensions,
        "billable_dimensions": dimensions if sums.billable else {},
    }


def _row(key: HourKey, row: RowKey, values: Mapping[str, Any], revision: int) -> dict[str, Any]:
    return {
        "account_id": key.account_id,
        "hour": from_ms(key.hour_ms),
        "phase_id": row.phase_id,
        "product": row.product,
        "mode": row.mode.value,
        "key_id": row.key_id,
        "endpoint": row.endpoint,
        "status": row.status,
        "outcome": row.outcome.value,
        "revision": revision,
        **values,
    }


def _names(hours: Sequence[HourKey]) -> dict[str, list[Any]]:
    return {"accounts": [key.account_id for key in hours], "hours": [from_ms(key.hour_ms) for key in hours]}


def _is_one_of(table: type[UsageHour | UsageHourly], hours: Sequence[HourKey]) -> Any:
    names = _names(hours)
    wanted = func.unnest(cast(names["accounts"], ARRAY(Text())), cast(names["hours"], ARRAY(UtcDateTime())))
    derived = wanted.table_valued("account_id", "hour").render_derived()
    return tuple_(table.account_id, table.hour).in_(select(derived.c.account_id, derived.c.hour))


async def run_aggregator(
    *,
    config: AggregatorConfig,
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Keep the rollups up to date until `stop`. Failures are counted, logged and tried again.

    After a failure fewer hours are taken at once, and one that fails alone goes to the end of the queue: an hour
    too large for a query, or spoiled, holds up no other for long.
    """
    pauses = Pauses(stop)
    reported = 0.0
    limit = config.hours_per_pass
    while not stop.is_set():
        try:
            if limit == 0:
                await _put_first_last(sessions, clock())
                limit = 1
            done = await aggregate_touched(sessions, store, now=clock(), limit=limit)
            taken, limit = limit, min(config.hours_per_pass, limit * 2)
            if time.monotonic() - reported > 1.0:
                reported = time.monotonic()
                async with sessions() as session:
                    metrics.HOURS_TOUCHED.set(
                        await session.scalar(text("SELECT count(*) FROM touched_hours")) or 0
                    )
            pauses.reset()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next round may go better
            metrics.FAILURES.labels("aggregator", "recompute").inc()
            log.warning("the aggregator failed and tries again", hours_at_once=limit, error=repr(error))
            limit //= 2
            await pauses.wait()
            continue
        if done < taken:
            await sleep_unless(stop, config.pause_seconds)


async def _put_first_last(sessions: async_sessionmaker[AsyncSession], now: datetime) -> None:
    async with sessions() as session, session.begin():
        for account_id, hour in await session.execute(_PUT_LAST, {"now": now}):
            log.error("an hour cannot be recomputed; others go first", account_id=account_id, hour=str(hour))
