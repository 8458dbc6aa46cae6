"""The hours behind a usage line: what each added to the units that the line bills."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.invoices.tables import Invoice, InvoiceLine
from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.clock import as_utc
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timeline


class LineWithoutUsageError(ConflictError):
    """The line charges no usage."""

    def __init__(self, invoice_id: str, position: int) -> None:
        super().__init__(
            "line_without_usage",
            f"Line {position} of invoice {invoice_id} charges no usage: only lines of the kind usage have hours.",
        )


@dataclass(frozen=True, slots=True)
class LineHour:
    """Billable units of one hour that the line counts, below zero where they were taken back; last sealed then."""

    hour: datetime
    units: int
    sealed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUsage:
    """What a usage line stands on. Its hours were sealed in (`since`, `until`]; `since` is None for a first line.

    `other_units` = `used_units` less the units of all hours: usage that was billed before its hour was sealed, or
    a meter that does not add up over hours (unique, max, latest).
    """

    account_id: str
    product_code: str
    meter: str
    period: BillingPeriod
    since: datetime | None
    until: datetime
    used_units: int
    other_units: int
    hours: Page[LineHour]


_SINCE = text("""
SELECT max(invoice.usage_as_of) FROM invoice_lines AS line JOIN invoices AS invoice ON invoice.id = line.invoice_id
WHERE line.subscription_id = :subscription_id AND line.period_start = :period_start
    AND line.charge_key = :charge_key AND invoice.status NOT IN ('draft', 'void')
    AND invoice.finalised_at < :before
""")
_LEDGER = """
FROM usage_ledger
WHERE phase_id = ANY (CAST(:phases AS text[])) AND meter = :meter AND hour >= :start AND hour < :end
    AND sealed_at <= :until AND (CAST(:since AS timestamptz) IS NULL OR sealed_at > :since)
"""
_TOTAL = text(f"SELECT CAST(coalesce(sum(delta_units), 0) AS bigint) {_LEDGER}")
_HOURS = text(f"""
SELECT hour, CAST(sum(delta_units) AS bigint) AS units, max(sealed_at) AS sealed_at {_LEDGER}
    AND (CAST(:after AS timestamptz) IS NULL OR hour > :after)
GROUP BY hour HAVING sum(delta_units) <> 0 ORDER BY hour LIMIT :limit
""")


async def line_usage(
    session: AsyncSession, *, invoice_id: str, position: int, cursor: str | None = None, limit: int = 200
) -> LineUsage:
    """Return the hours behind a usage line of an invoice, in order; at most `limit` of them, cut at 200.

    The requests of an hour are found in the request history, by account and hour.

    Raises:
        NotFoundError: no such invoice or line. LineWithoutUsageError: the line charges no usage.
        ValidationFailedError: `cursor` is none of this list.
    """
    invoice = await session.get(Invoice, invoice_id)
    if invoice is None:
        raise NotFoundError("invoice", invoice_id)
    line = await _line(session, invoice_id, position)
    if line.kind != "usage" or line.subscription_id is None or line.meter is None:
        raise LineWithoutUsageError(invoice_id, position)
    found = await timeline(session, line.subscription_id)
    period = BillingPeriod(line.period_start, line.period_end)
    until = invoice.usage_as_of or invoice.created_at
    asked = {
        "phases": _phases(found, period, line.plan_version_id or ""),
        "meter": line.meter,
        "start": period.start,
        "end": period.end,
        "since": await _since(session, invoice, line),
        "until": until,
    }
    counted = (await session.execute(_TOTAL, asked)).scalar_one()
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    after = None if cursor is None else decode_cursor(cursor, datetime)[0]
    rows = (await session.execute(_HOURS, {**asked, "after": after, "limit": limit + 1})).all()
    hours = [LineHour(as_utc(row.hour), row.units, as_utc(row.sealed_at)) for row in rows]
    product = await session.get_one(ApiProduct, found.api_product_id)
    return LineUsage(
        account_id=invoice.account_id,
        product_code=product.code,
        meter=line.meter,
        period=period,
        since=asked["since"],
        until=until,
        used_units=line.used_units or 0,
        other_units=(line.used_units or 0) - counted,
        hours=page_of(hours, limit=limit, sort_values=lambda hour: (hour.hour,)),
    )


async def _line(session: AsyncSession, invoice_id: str, position: int) -> InvoiceLine:
    statement = select(InvoiceLine).where(InvoiceLine.invoice_id == invoice_id, InvoiceLine.position == position)
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        raise NotFoundError("invoice_line", f"{position} of {invoice_id}")
    return row


async def _since(session: AsyncSession, invoice: Invoice, line: InvoiceLine) -> Any:
    """Return up to when usage was known to the invoice that billed the charge before, None for the first."""
    asked = {
        "subscription_id": line.subscription_id,
        "period_start": line.period_start,
        "charge_key": line.charge_key,
        "before": invoice.finalised_at or invoice.usage_as_of,
    }
    since = (await session.execute(_SINCE, asked)).scalar()
    return since and as_utc(since)


def _phases(found: Timeline, period: BillingPeriod, version_id: str) -> Sequence[str]:
    """Return the paid phases in which the version, of a plan or an add-on, was in force."""
    return [
        phase.id
        for phase in found.phases_within(period)
        if phase.costs
        and version_id in {phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons)}
    ]
