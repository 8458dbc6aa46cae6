"""What stands of an hour in PostgreSQL: rows replaced whole where figures changed, and the hour's revision."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.usage import metrics
from control_plane.usage.corrections.model import AMENDED, Amendment
from control_plane.usage.daily.marks import touch_days
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey
from control_plane.usage.rollups import metrics as rollup_metrics
from control_plane.usage.rollups.amended import RowValues, amended_rows
from control_plane.usage.rollups.rollup import RowKey, RowSums
from control_plane.usage.rollups.superseding import keep_sealed
from control_plane.usage.tables import UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

log = structlog.get_logger(__name__)

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
    amendments: Mapping[HourKey, Sequence[Amendment]],
    standing: Collection[HourKey] = (),
    revisions: Mapping[HourKey, int],
    now: datetime,
) -> list[HourKey]:
    """Replace the rows of hours whose figures changed, and return these hours. The caller holds their locks.

    Hours that are `standing` keep the rows they have, and get their amendments. An hour that comes out the same
    keeps revision and seal; what was sealed of the others is kept aside.
    """
    before = await standing_rows(session, hours)
    after = {}
    for key in hours:
        stands = before.get(key, {})
        counted: dict[RowKey, RowValues]
        if key in standing:
            counted = {row: values for row, values in stands.items() if not row.amendment_id}
        else:
            counted = {row: _values(sums) for row, sums in rows.get(key, {}).items()}
        after[key] = {**counted, **_amended(key, counted, amendments.get(key, ()))}
    changed = [key for key in hours if after[key] != before.get(key, {})]
    unchanged = [key for key in hours if after[key] == before.get(key, {})]
    if changed:
        await touch_days(session, hours=changed, now=now)
        await keep_sealed(session, changed, now=now)
        await session.execute(delete(UsageHourly).where(is_one_of(UsageHourly, changed)))
        new_rows = [
            _row(key, row, values, revisions[key] + 1) for key in changed for row, values in after[key].items()
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


def _amended(
    key: HourKey, counted: Mapping[RowKey, RowValues], amendments: Sequence[Amendment]
) -> dict[RowKey, dict[str, Any]]:
    found = amended_rows(counted, amendments)
    if found.clamped:
        rollup_metrics.AMENDMENTS_CLAMPED.inc(len(found.clamped))
        log.warning(
            "amendments would take more than there is",
            account_id=key.account_id,
            hour_ms=key.hour_ms,
            amendments=sorted(found.clamped),
        )
    return found.rows


async def open_hours(session: AsyncSession, hours: Collection[HourKey], *, now: datetime) -> None:
    """Give hours a new revision and open their seals: figures that do not stand in their rows have changed."""
    if hours:
        await keep_sealed(session, hours, now=now)
        await session.execute(
            update(UsageHour)
            .where(is_one_of(UsageHour, hours))
            .values(revision=UsageHour.revision + 1, sealed_at=None)
            .execution_options(synchronize_session=False)
        )


async def standing_rows(
    session: AsyncSession, hours: Sequence[HourKey]
) -> dict[HourKey, dict[RowKey, dict[str, Any]]]:
    """Return the figures of hours as they stand, by column name; hours without rows are left out."""
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
        UsageHourly.amendment_id,
        *(getattr(UsageHourly, name) for name in _ROW_COLUMNS),
    ).where(is_one_of(UsageHourly, hours))
    standing: dict[HourKey, dict[RowKey, dict[str, Any]]] = {}
    for row in await session.execute(statement):
        (
            account_id,
            hour,
            phase_id,
            product,
            mode,
            key_id,
            endpoint,
            status,
            outcome,
            replayed,
            amendment,
            *values,
        ) = row
        outcome = AMENDED if amendment else Outcome(outcome)
        key = RowKey(phase_id, product, Mode(mode), key_id, endpoint, status, outcome, replayed, amendment)
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
        "billable_dimensions": dimensions if sums.billable_dimensions else {},
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
        "outcome": str(row.outcome),
        "replayed": row.replayed,
        "amendment_id": row.amendment_id,
        "revision": revision,
        **values,
    }
