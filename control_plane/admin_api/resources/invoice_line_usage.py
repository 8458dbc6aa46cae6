"""The hours behind a usage line of an invoice."""

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Moment, PageQuery
from control_plane.admin_api.invoice_forms import InvoiceId
from control_plane.admin_api.resources.subscription_answers import PeriodAnswer
from control_plane.billing.invoices.line_usage import LineHour, LineUsage, line_usage

router = APIRouter(tags=["invoices"])
HOUR = timedelta(hours=1)
Position = Annotated[int, Path(ge=1, le=10**9, description="The line's place on the invoice.")]


class LineHourAnswer(BaseModel):
    hour: Moment
    units: int = Field(description="Billable units that the line counts of this hour; below 0: taken back.")
    sealed_at: Moment
    requests: str = Field(description="Where its requests are searched: a path of this API.")


class LineUsageAnswer(BaseModel):
    """What a usage line stands on."""

    account_id: str
    api_product: str
    meter: str
    period: PeriodAnswer
    since: Moment | None = Field(description="Usage sealed up to then was billed before; null: none was.")
    until: Moment = Field(description="What was sealed later is not in this line.")
    used_units: int = Field(description="Billable units of the line, included ones too.")
    other_units: int = Field(
        description="Of these, what no sealed hour holds: billed before its hour was sealed, or of a meter that "
        "does not add up over hours."
    )
    items: list[LineHourAnswer]
    next_cursor: str | None


@router.get("/invoices/{invoice_id}/lines/{position}/usage")
async def get_line_usage(
    invoice_id: InvoiceId, position: Position, session: Database, query: Annotated[PageQuery, Query()]
) -> LineUsageAnswer:
    """Return the hours whose units a usage line charges, each with the way to its requests."""
    found = await line_usage(
        session, invoice_id=invoice_id, position=position, cursor=query.cursor, limit=query.limit
    )
    return _answer(found)


def _answer(found: LineUsage) -> LineUsageAnswer:
    return LineUsageAnswer(
        account_id=found.account_id,
        api_product=found.product_code,
        meter=found.meter,
        period=PeriodAnswer(start=found.period.start, end=found.period.end),
        since=found.since,
        until=found.until,
        used_units=found.used_units,
        other_units=found.other_units,
        items=[_hour(found, hour) for hour in found.hours.items],
        next_cursor=found.hours.next_cursor,
    )


def _hour(found: LineUsage, hour: LineHour) -> LineHourAnswer:
    asked = {
        "product": found.product_code,
        "start": f"{hour.hour:%Y-%m-%dT%H:%M:%SZ}",
        "end": f"{hour.hour + HOUR:%Y-%m-%dT%H:%M:%SZ}",
    }
    return LineHourAnswer(
        hour=hour.hour,
        units=hour.units,
        sealed_at=hour.sealed_at,
        requests=f"/admin/v1/accounts/{found.account_id}/events?{urlencode(asked)}",
    )
