"""What declared meters come to in phases and spans: read from what was counted."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meters import Aggregation
from control_plane.catalog.tables import ApiProduct, Meter
from control_plane.foundation.clock import to_ms
from control_plane.usage.hours import hour_arrays
from control_plane.usage.model import HourKey

Span = tuple[str, datetime, datetime]
"""Phase, from, to: full hours."""

# A unique meter has a value only where the span is a whole billing period.
_VALUES = text("""
WITH asked AS (
    SELECT * FROM unnest(CAST(:phases AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))
        AS asked (phase_id, span_start, span_end)
)
SELECT
    asked.phase_id, span_start, subscription_id, plan_version_id, phase.starts_at, code, aggregation,
    CASE aggregation
        WHEN 'max' THEN max(hourly.value)
        WHEN 'latest' THEN (array_agg(hourly.value ORDER BY hourly.latest_at_ms DESC))[1]
        WHEN 'unique' THEN (
            SELECT period.value FROM meter_periods AS period
            JOIN meter_period_states AS state USING (subscription_id, period_start)
            WHERE period.subscription_id = phase.subscription_id AND period.meter_id = meter.id
                AND period.plan_version_id = phase.plan_version_id
                AND period_start = span_start AND period_end = span_end)
        ELSE CAST(sum(hourly.value) AS bigint)
    END AS value,
    max(hourly.latest_at_ms) AS latest_at_ms
FROM asked
JOIN subscription_phases AS phase ON phase.id = asked.phase_id
JOIN meter_hourly AS hourly
    ON hourly.phase_id = asked.phase_id AND hourly.hour >= span_start AND hourly.hour < span_end
JOIN meters AS meter ON meter.id = hourly.meter_id
GROUP BY asked.phase_id, span_start, span_end, subscription_id, plan_version_id, phase.starts_at, meter.id
ORDER BY phase.starts_at
""")
# Where an application reports a dimension of the meter's name, the rows of the hour hold its sum: it is no part of
# what the meter comes to, so it is taken off.
_PRICED = text("""
WITH sealed AS (
    SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])) AS sealed (account_id, hour)
), priced AS (
    SELECT DISTINCT phase.id AS phase_id, meter.id AS meter_id, meter.code, product.code AS product
    FROM meters AS meter
    JOIN api_products AS product ON product.id = meter.api_product_id
    JOIN plans AS plan ON plan.api_product_id = product.id
    JOIN plan_versions AS version ON version.plan_id = plan.id
    JOIN prices AS price ON price.plan_version_id = version.id AND price.meter = meter.code
    JOIN subscription_phases AS phase ON phase.plan_version_id = version.id
    WHERE meter.aggregation IN ('count', 'sum')
        AND phase.id IN (SELECT phase_id FROM usage_hourly JOIN sealed USING (account_id, hour))
)
SELECT account_id, hour, phase_id, code, CAST(sum(units) AS bigint)
FROM (
    SELECT account_id, hour, phase_id, code, value AS units
    FROM meter_hourly JOIN sealed USING (account_id, hour) JOIN priced USING (phase_id, meter_id)
    UNION ALL
    SELECT account_id, hour, phase_id, code, -CAST(billable_dimensions ->> code AS bigint)
    FROM usage_hourly JOIN sealed USING (account_id, hour) JOIN priced USING (phase_id, product)
    WHERE amendment_id = '' AND mode = 'live' AND jsonb_exists(billable_dimensions, code)
) AS amounts
GROUP BY account_id, hour, phase_id, code
""")


@dataclass(frozen=True, slots=True)
class PhaseValue:
    """What a meter comes to in the part of a phase that lies in a span. `latest_at_ms` of latest meters only."""

    phase_id: str
    span_start: datetime
    subscription_id: str
    plan_version_id: str
    phase_starts_at: datetime
    code: str
    aggregation: Aggregation
    value: int
    latest_at_ms: int | None


async def metered_units(
    session: AsyncSession, spans: Collection[Span]
) -> dict[tuple[str, datetime], dict[str, int]]:
    """Return what declared meters come to, by (phase, start of the span) and code; nothing where nothing counted.

    Each plan version has one value in a span, and it stands with one of its phases, others having 0: added up over
    the phases of a version, values are what the version charges for.
    """
    found: dict[tuple[str, datetime], dict[str, int]] = defaultdict(dict)
    for value in one_for_each_version(await phase_values(session, spans)):
        found[value.phase_id, value.span_start][value.code] = value.value
    return dict(found)


async def phase_values(session: AsyncSession, spans: Collection[Span]) -> list[PhaseValue]:
    """Return each phase's own values in these spans, in the order in which phases began.

    Of unique meters it is the value of the phase's plan version in the whole span.
    """
    if not spans:
        return []
    phases, starts, ends = zip(*spans, strict=True)
    rows = await session.execute(_VALUES, {"phases": list(phases), "starts": list(starts), "ends": list(ends)})
    return [
        PhaseValue(
            phase_id=row.phase_id,
            span_start=row.span_start,
            subscription_id=row.subscription_id,
            plan_version_id=row.plan_version_id,
            phase_starts_at=row.starts_at,
            code=row.code,
            aggregation=Aggregation(row.aggregation),
            value=row.value,
            latest_at_ms=row.latest_at_ms,
        )
        for row in rows
        # the first count of a period is on its way
        if row.value is not None
    ]


def one_for_each_version(values: Iterable[PhaseValue]) -> list[PhaseValue]:
    """Leave one value to each plan version, where a meter's values do not add up. Pure.

    Of max the greatest, of latest the one that came last, of unique the first: it is that of the whole version.
    """
    kept: dict[tuple[str, str, datetime, str], PhaseValue] = {}
    adding: list[PhaseValue] = []
    for value in values:
        if value.aggregation.adds_up:
            adding.append(value)
            continue
        place = (value.subscription_id, value.plan_version_id, value.span_start, value.code)
        if place not in kept or _rank(value) > _rank(kept[place]):
            kept[place] = value
    return [*adding, *kept.values()]


def _rank(value: PhaseValue) -> int:
    if value.aggregation is Aggregation.LATEST:
        return value.latest_at_ms or 0
    return value.value if value.aggregation is Aggregation.MAX else 0


async def declared_codes(session: AsyncSession, products: Collection[str]) -> dict[str, set[str]]:
    """Return, by product code, the codes of its declared meters, archived ones too.

    A dimension of that name, which an application may report, is not what a price of that name counts.
    """
    statement = (
        select(ApiProduct.code, Meter.code)
        .join(Meter, Meter.api_product_id == ApiProduct.id)
        .where(ApiProduct.code.in_(products))
    )
    found: dict[str, set[str]] = defaultdict(set)
    for product, code in await session.execute(statement):
        found[product].add(code)
    return dict(found)


async def priced_units_of_hours(
    session: AsyncSession, hours: Sequence[HourKey]
) -> Mapping[tuple[HourKey, str, str], int]:
    """Return what count and sum meters add to the ledger of these hours: see `rollups.ledger.ExtraUnits`.

    Only where the phase's plan version has a price on the meter.
    """
    rows = await session.execute(_PRICED, hour_arrays(hours))
    return {
        (HourKey(account_id, to_ms(hour)), phase_id, code): units
        for account_id, hour, phase_id, code, units in rows
        if units
    }
