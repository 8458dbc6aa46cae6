"""What declared meters came to over a span of days, by account: what another plan would have charged for."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# different values of a span are not known: those of the billing period with most of them stand for them
_UNITS = text("""
SELECT hourly.account_id, product.code AS product, meter.code,
    CASE aggregation
        WHEN 'max' THEN max(hourly.value)
        WHEN 'latest' THEN (array_agg(hourly.value ORDER BY hourly.latest_at_ms DESC))[1]
        WHEN 'unique' THEN coalesce((
            SELECT max(period.value) FROM meter_periods AS period
            JOIN meter_period_states AS state USING (subscription_id, period_start)
            WHERE state.account_id = hourly.account_id AND period.meter_id = meter.id AND period_end > :start), 0)
        ELSE CAST(sum(hourly.value) AS bigint)
    END AS units
FROM meters AS meter
JOIN api_products AS product ON product.id = meter.api_product_id
JOIN meter_hourly AS hourly ON hourly.meter_id = meter.id
WHERE hourly.account_id = ANY(:accounts) AND hourly.hour >= :start AND hourly.hour <= :end
GROUP BY hourly.account_id, product.code, meter.id
""")


async def units_of_accounts(
    session: AsyncSession, account_ids: Collection[str], *, start: datetime, end: datetime
) -> dict[tuple[str, str], dict[str, int]]:
    """Return units by (account, API product's code) and meter; what counted nothing is not there."""
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    rows = await session.execute(_UNITS, {"accounts": sorted(account_ids), "start": start, "end": end})
    for account_id, product, code, units in rows:
        found[account_id, product][code] = units
    return dict(found)
