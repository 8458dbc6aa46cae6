"""What stands of an hour in PostgreSQL: rows replaced whole where figures changed, and the hour's revision."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Text, cast, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.db import UtcDateTime
from control_plane.usage import metrics
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.rollup import RowKey, RowSums
from control_plane.usage.tables import ReplayHour, TouchedHour, UnmatchedReplay, UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

HourTable = type[UsageHour | UsageHourly | TouchedHour | ReplayHour | UnmatchedReplay]

_ROW_COLUMNS = (
    "calls",
    "units",
    "billable_calls",
    "billable_units",
    "bytes_in",
    "bytes_out",
    "latency_ms_sum",
    "gateway_ms_sum",
    "upstream_ms_sum",
    "dimensions",
    "billable_dimensions",
)


async def write_hours(
    session: AsyncSession,
    hours: Sequence[HourKey],
    rows: Mapping[HourKey, Mapping[RowKey, RowSums]],
    *,
    revisions: Mapping[HourKey, int],
    now: datetime,
) -> list[HourKey]:
    """Replace the rows of hours whose figures changed, and return these hours.

    An hour that came out the same keeps revision and seal.
    """
    standing = await _standing_rows(session, hours)
    computed = {key: {row: _values(sums) for row, sums in rows.get(key, {}).items()} for key in hours}
    changed = [key for key in hours if computed[key] != standing.get(key, {})]
    unchanged = [key for key in hours if computed[key] == standing.get(key, {})]
    if changed:
        await session.execute(delete(UsageHourly).where(is_one_of(UsageHourly, changed)))
        new_rows = [
            _row(key, row, values, revisions[key] + 1) for key in changed for row, values in computed[key].items()
        ]
        if new_rows:
            await session.execute(insert(UsageHourly), new_rows)
        await session.execute(
            update(UsageHour)
            .where(is_one_of(UsageHour, changed))
            .values(revision=UsageHour.revision + 1, aggregated_at=now, sealed_at=None)
            .execution_options(synchronize_session=False)
        )
    if unchanged:
        await session.execute(
            update(UsageHour)
            .where(is_one_of(UsageHour, unchanged))
            .values(aggregated_at=now)
            .execution_options(synchronize_session=False)
        )
    metrics.HOURS_RECOMPUTED.labels("yes").inc(len(changed))
    metrics.HOURS_RECOMPUTED.labels("no").inc(len(unchanged))
    return changed


async def open_hours(session: AsyncSession, hours: Collection[HourKey]) -> None:
    """Give hours a new revision and open their seals: figures that do not stand in their rows have changed."""
    if hours:
        await session.execute(
            update(UsageHour)
            .where(is_one_of(UsageHour, hours))
            .values(revision=UsageHour.revision + 1, sealed_at=None)
            .execution_options(synchronize_session=False)
        )


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
        UsageHourly.replayed,
        *(getattr(UsageHourly, name) for name in _ROW_COLUMNS),
    ).where(is_one_of(UsageHourly, hours))
    standing: dict[HourKey, dict[RowKey, dict[str, Any]]] = {}
    for row in await session.execute(statement):
        account_id, hour, phase_id, product, mode, key_id, endpoint, status, outcome, replayed, *values = row
        key = RowKey(phase_id, product, Mode(mode), key_id, endpoint, status, Outcome(outcome), replayed)
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
        "upstream_ms_sum": sums.upstream_ms_sum,
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
        "replayed": row.replayed,
        "revision": revision,
        **values,
    }


def hour_arrays(hours: Collection[HourKey]) -> dict[str, list[Any]]:
    """Return hours as two arrays of equal length, `accounts` and `hours`, for `unnest`."""
    return {"accounts": [key.account_id for key in hours], "hours": [from_ms(key.hour_ms) for key in hours]}


def is_one_of(table: HourTable, hours: Collection[HourKey]) -> Any:
    """Return the condition that a row is of one of these hours."""
    names = hour_arrays(hours)
    wanted = func.unnest(cast(names["accounts"], ARRAY(Text())), cast(names["hours"], ARRAY(UtcDateTime())))
    derived = wanted.table_valued("account_id", "hour").render_derived()
    return tuple_(table.account_id, table.hour).in_(select(derived.c.account_id, derived.c.hour))
