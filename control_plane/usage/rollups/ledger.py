"""The ledger of sealed usage: what each seal changed in billable units, by phase and meter.

Bills are made from it, so that what was billed can be told from what came later, and what was known at any past
moment can be asked for.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import as_utc, from_ms, to_ms
from control_plane.foundation.db import is_any_of
from control_plane.usage.hours import hour_arrays
from control_plane.usage.model import HourKey
from control_plane.usage.queries import MEASURED_METERS, REQUESTS_METER, PhaseUsage, check_hours, phases_within
from control_plane.usage.rollups import metrics
from control_plane.usage.rollups.tables import CALLS_METER, UsageLedger

ExtraUnits = Callable[[AsyncSession, Sequence[HourKey]], Awaitable[Mapping[tuple[HourKey, str, str], int]]]
"""Returns billable units that no row of `usage_hourly` holds, by (hour, phase, meter).

Called in the sealing transaction, which holds the locks of these hours: what it reads must be written under the
same locks, as everything derived by the aggregator is. The units of one meter come from one such function only;
amendments of it are added. Must not commit.
"""

_CHANGES = """
WITH sealed AS (
    SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]), CAST(:revisions AS bigint[]),
        CAST(:sealed_at AS timestamptz[])) AS sealed (account_id, hour, revision, sealed_at)
), counted AS (
    SELECT account_id, hour, phase_id, meter, greatest(sum(units), 0) AS units
    FROM (
        SELECT account_id, hour, phase_id, amounts.meter, amounts.units
        FROM usage_hourly JOIN sealed USING (account_id, hour)
        CROSS JOIN LATERAL (
            SELECT * FROM (VALUES
                ('', billable_calls),
                ('requests', billable_units),
                ('bytes_in', CASE WHEN billable_calls > 0 OR amendment_id <> '' THEN bytes_in END),
                ('bytes_out', CASE WHEN billable_calls > 0 OR amendment_id <> '' THEN bytes_out END),
                ('upstream_ms', CASE WHEN billable_calls > 0 OR amendment_id <> '' THEN upstream_ms_sum END)
            ) AS built_in (meter, units)
            -- a dimension of a built-in meter's name is not what a price of that name counts
            UNION ALL SELECT key, CAST(value AS bigint) FROM jsonb_each_text(billable_dimensions)
            WHERE key NOT IN ('', 'requests', 'bytes_in', 'bytes_out', 'upstream_ms')
        ) AS amounts (meter, units)
        WHERE mode = 'live'
        UNION ALL
        SELECT * FROM unnest(CAST(:extra_accounts AS text[]), CAST(:extra_hours AS timestamptz[]),
            CAST(:extra_phases AS text[]), CAST(:extra_meters AS text[]), CAST(:extra_units AS bigint[]))
    ) AS amounts (account_id, hour, phase_id, meter, units)
    GROUP BY account_id, hour, phase_id, meter
), known AS (
    SELECT account_id, hour, phase_id, meter, sum(delta_units) AS units
    FROM usage_ledger JOIN sealed USING (account_id, hour)
    GROUP BY account_id, hour, phase_id, meter
), changes AS (
    SELECT account_id, hour, phase_id, meter, coalesce(counted.units, 0) AS units,
        coalesce(counted.units, 0) - coalesce(known.units, 0) AS delta_units
    FROM counted FULL JOIN known USING (account_id, hour, phase_id, meter)
)
"""
_ADD = text(f"""{_CHANGES}
INSERT INTO usage_ledger (account_id, hour, revision, phase_id, meter, units, delta_units, sealed_at)
SELECT account_id, hour, sealed.revision, phase_id, meter, units, delta_units, sealed.sealed_at
FROM changes JOIN sealed USING (account_id, hour)
WHERE delta_units <> 0
ORDER BY account_id, hour, phase_id, meter
RETURNING delta_units > 0
""")  # noqa: S608 - constants, no input
_DIFFERENCES = text(f"""{_CHANGES}
SELECT account_id, hour, phase_id, meter, units, units - delta_units AS known_units
FROM changes WHERE delta_units <> 0
ORDER BY account_id, hour, phase_id, meter
""")  # noqa: S608 - constants, no input


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDifference:
    """An hour's meter: `units` by its rows, `known_units` by the ledger."""

    key: HourKey
    phase_id: str
    meter: str
    units: int
    known_units: int


async def write_ledger(
    session: AsyncSession,
    sealed: Mapping[HourKey, tuple[int, datetime]],
    *,
    extra_units: Sequence[ExtraUnits] = (),
) -> int:
    """Write what these hours' units differ by from what the ledger says of them; returns how many rows.

    `sealed`: revision and moment of each seal. The caller holds the hours' locks, so that no row changes between
    this and the seal. A meter that had units and has none any more gets a row that takes them back.
    """
    if not sealed:
        return 0
    rows = await session.execute(_ADD, await _asked(session, sealed, extra_units))
    added = [more for (more,) in rows]
    metrics.LEDGER_ENTRIES.labels("more").inc(sum(added))
    metrics.LEDGER_ENTRIES.labels("less").inc(len(added) - sum(added))
    return len(added)


async def ledger_differences(
    session: AsyncSession,
    sealed: Mapping[HourKey, tuple[int, datetime]],
    *,
    extra_units: Sequence[ExtraUnits] = (),
) -> list[LedgerDifference]:
    """Return where the ledger says something else of these sealed hours than their rows do: there should be none.

    What sealing them now would write, without writing it. Hours whose rows were dropped must not be asked for.
    """
    if not sealed:
        return []
    rows = await session.execute(_DIFFERENCES, await _asked(session, sealed, extra_units))
    return [
        LedgerDifference(
            key=HourKey(row.account_id, to_ms(as_utc(row.hour))),
            phase_id=row.phase_id,
            meter=row.meter,
            units=int(row.units),
            known_units=int(row.known_units),
        )
        for row in rows
    ]


async def _asked(
    session: AsyncSession, sealed: Mapping[HourKey, tuple[int, datetime]], extra_units: Sequence[ExtraUnits]
) -> dict[str, Any]:
    hours = sorted(sealed)
    extra = [item for one in extra_units for item in (await one(session, hours)).items()]
    return {
        **hour_arrays(hours),
        "revisions": [sealed[key][0] for key in hours],
        "sealed_at": [sealed[key][1] for key in hours],
        "extra_accounts": [key.account_id for (key, _, _), _ in extra],
        "extra_hours": [from_ms(key.hour_ms) for (key, _, _), _ in extra],
        "extra_phases": [phase_id for (_, phase_id, _), _ in extra],
        "extra_meters": [meter for (_, _, meter), _ in extra],
        "extra_units": [units for _, units in extra],
    }


async def billable_units_as_of(
    session: AsyncSession, *, subscription_id: str, start: datetime, end: datetime, at: datetime
) -> list[PhaseUsage]:
    """Return billable units of a subscription in [start, end) as they were sealed at a moment, phase by phase.

    Only hours that were sealed by then count. The phases are those known now.

    Raises:
        ValidationFailedError: `start` or `end` is not a full hour.
    """
    check_hours(start, end)
    phases = await phases_within(session, subscription_id=subscription_id, start=start, end=end)
    rows = await session.execute(
        select(
            UsageLedger.phase_id,
            UsageLedger.meter,
            # PostgreSQL's sum of bigint is numeric
            cast(func.sum(UsageLedger.delta_units), BigInteger),
        )
        .where(
            is_any_of(UsageLedger.phase_id, [phase.id for phase in phases]),
            UsageLedger.hour >= start,
            UsageLedger.hour < end,
            UsageLedger.sealed_at <= at,
        )
        .group_by(UsageLedger.phase_id, UsageLedger.meter)
    )
    units: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys((REQUESTS_METER, *MEASURED_METERS), 0))
    calls: dict[str, int] = {}
    for phase_id, meter, known in rows:
        if meter == CALLS_METER:
            calls[phase_id] = known
        else:
            units[phase_id][meter] = known
    return [
        PhaseUsage(
            phase_id=phase.id,
            plan_version_id=phase.plan_version_id,
            starts_at=phase.starts_at,
            ends_at=phase.ends_at,
            calls=calls.get(phase.id, 0),
            units=units[phase.id],
        )
        for phase in phases
    ]
