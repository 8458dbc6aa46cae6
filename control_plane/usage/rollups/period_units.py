"""What phases have used of billing periods, for many at once: days as they were rolled up, the rest by hours.

The same sums as `phase_units` finds by hours alone, of what is billable. A month is read in about thirty rows for
each key, endpoint and status, however many hours it had.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import as_utc, floor_day
from control_plane.foundation.json_rows import as_json
from control_plane.usage.meters.values import declared_codes, metered_units
from control_plane.usage.queries import MEASURED_METERS, REQUESTS_METER

DAY = timedelta(days=1)
METERS = (REQUESTS_METER, *MEASURED_METERS)
Place = tuple[str, datetime]
"""A phase, and the start of the span."""

_FOLDER = resources.files("control_plane.usage.rollups")
_ROWS = (_FOLDER / "period_rows.sql").read_text(encoding="utf-8")
_TOTALS = text(f"""{_ROWS}
SELECT phase_id, span_start, CAST(sum(billable_units) AS bigint),
    CAST(sum(bytes_in) FILTER (WHERE billed) AS bigint), CAST(sum(bytes_out) FILTER (WHERE billed) AS bigint),
    CAST(sum(upstream_ms_sum) FILTER (WHERE billed) AS bigint), bool_or(billable_dimensions <> '{{}}')
FROM rows GROUP BY phase_id, span_start
""")  # noqa: S608 - constants, no input
_DIMENSIONS = text(f"""{_ROWS}
SELECT phase_id, span_start, product, amended, key, CAST(sum(CAST(value AS bigint)) AS bigint) AS units
FROM rows CROSS JOIN LATERAL jsonb_each_text(billable_dimensions)
GROUP BY phase_id, span_start, product, amended, key
""")  # noqa: S608 - constants, no input


@dataclass(frozen=True, slots=True)
class PhasePeriod:
    """A phase of an account's subscription in [start, end): full hours. `declares`: it is priced by own meters."""

    phase_id: str
    account_id: str
    start: datetime
    end: datetime
    declares: bool = True


async def units_of_periods(
    session: AsyncSession, periods: Collection[PhasePeriod]
) -> Mapping[Place, Mapping[str, int]]:
    """Return billable units of live calls by meter; phases without usage are left out.

    What declared meters come to stands with one phase of each plan version (see `metered_units`), and only where
    a period says that it `declares` some. An amendment may have left less than nothing of a meter.
    """
    if not periods:
        return {}
    found: dict[Place, dict[str, int]] = {}
    with_dimensions: set[Place] = set()
    for phase_id, start, *amounts, has_dimensions in await session.execute(_TOTALS, _asked(periods)):
        place = phase_id, as_utc(start)
        found[place] = {meter: units or 0 for meter, units in zip(METERS, amounts, strict=True)}
        if has_dimensions:
            with_dimensions.add(place)
    await _add_dimensions(session, [one for one in periods if (one.phase_id, one.start) in with_dimensions], found)
    declaring = {(one.phase_id, one.start, one.end) for one in periods if one.declares}
    if declaring:
        for (phase_id, start), values in (await metered_units(session, declaring)).items():
            _add(found.setdefault((phase_id, as_utc(start)), {}), values)
    return found


async def _add_dimensions(
    session: AsyncSession, periods: Collection[PhasePeriod], found: dict[Place, dict[str, int]]
) -> None:
    if not periods:
        return
    rows = (await session.execute(_DIMENSIONS, _asked(periods))).all()
    declared = await declared_codes(session, {row.product for row in rows})
    for row in rows:
        # amendments of a declared meter stand in rows, what it counted does not
        if row.key not in METERS and (row.amended or row.key not in declared.get(row.product, ())):
            _add(found[row.phase_id, as_utc(row.span_start)], {row.key: row.units})


def _add(units: dict[str, int], more: Mapping[str, int]) -> None:
    for meter, count in more.items():
        units[meter] = units.get(meter, 0) + count


def _asked(periods: Collection[PhasePeriod]) -> dict[str, str]:
    rows = []
    for period in periods:
        first = floor_day(period.start + DAY - timedelta(microseconds=1))
        rows.append(
            {
                "phase_id": period.phase_id,
                "account_id": period.account_id,
                "span_start": period.start,
                "span_end": period.end,
                "first_day": first,
                "last_day": max(first, floor_day(period.end)),
            }
        )
    return {"asked": as_json(rows)}
