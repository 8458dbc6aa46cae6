"""What final invoices have charged, by subscription, billing period and charge."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.model import Billed, ChargeLine, LineKind
from control_plane.foundation.clock import as_utc
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import EXACT, Unit

# Lines of drafts may still change; those of void invoices were never charged.
_BILLED = text("""
WITH asked AS (
    SELECT * FROM unnest(CAST(:subscriptions AS text[]), CAST(:starts AS timestamptz[]))
        AS asked (subscription_id, period_start)
)
SELECT line.subscription_id, line.period_start, line.period_end, line.charge_key, line.kind, line.plan_version_id,
    line.description, line.formula, line.meter, line.used_units, line.quantity, line.unit_amount,
    line.exact_amount, line.amount_minor - line.corrected_minor AS amount_minor, line.details, invoice.currency
FROM asked
JOIN invoice_lines AS line USING (subscription_id, period_start)
JOIN invoices AS invoice ON invoice.id = line.invoice_id
WHERE invoice.status NOT IN ('draft', 'void') AND line.charge_key <> ''
ORDER BY invoice.finalised_at, invoice.number, line.position
""")


async def billed_charges(
    session: AsyncSession, periods: Collection[tuple[str, datetime]]
) -> dict[tuple[str, datetime], dict[str, Billed]]:
    """Return what was billed for periods (subscription, start), by charge key; periods without are left out."""
    if not periods:
        return {}
    subscriptions, starts = zip(*periods, strict=True)
    rows = await session.execute(_BILLED, {"subscriptions": list(subscriptions), "starts": list(starts)})
    found: dict[tuple[str, datetime], dict[str, Billed]] = defaultdict(dict)
    for row in rows:
        of_period = found[row.subscription_id, as_utc(row.period_start)]
        of_period[row.charge_key] = _added(of_period.get(row.charge_key), _line(row))
    return dict(found)


def _added(before: Billed | None, line: ChargeLine) -> Billed:
    quantity = line.corrects.get("quantity", line.quantity)
    if before is None:
        return Billed(
            first=line,
            amount_minor=line.amount_minor,
            exact_amount=line.exact_amount,
            used_units=line.used_units or 0,
            quantity=quantity,
            covered_ms=line.covered_ms,
        )
    return Billed(
        # what a correction says is about itself; the first line names the charge
        first=before.first,
        amount_minor=before.amount_minor + line.amount_minor,
        exact_amount=EXACT.add(before.exact_amount, line.exact_amount),
        used_units=before.used_units + (line.used_units or 0),
        quantity=before.quantity + quantity,
        covered_ms=before.covered_ms + line.covered_ms,
    )


def _line(row: Row[Any]) -> ChargeLine:
    details = row.details
    unit = details.get("unit")
    return ChargeLine(
        charge_key=row.charge_key,
        kind=LineKind(row.kind),
        period=BillingPeriod(as_utc(row.period_start), as_utc(row.period_end)),
        plan_version_id=row.plan_version_id,
        plan_code=details.get("plan", ""),
        plan_name=details.get("plan_name", ""),
        plan_version=details.get("plan_version", 0),
        currency=row.currency,
        description=row.description,
        formula=row.formula,
        meter=row.meter,
        unit=None if unit is None else Unit(*unit),
        used_units=row.used_units,
        quantity=row.quantity,
        unit_amount=row.unit_amount,
        exact_amount=row.exact_amount,
        amount_minor=row.amount_minor,
        covered_ms=details.get("covered_ms", 0),
        period_ms=details.get("period_ms", 1),
        corrects=details.get("corrects", {}),
    )
