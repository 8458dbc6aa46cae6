"""Tax rates."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.discount_forms import Percent, percent_text
from control_plane.admin_api.forms import Line, Moment, Name, PageAnswer, PageQuery, StrictBody, page_answer
from control_plane.admin_api.services import Now
from control_plane.billing.line_scopes import LineScope
from control_plane.billing.taxes import operations, queries
from control_plane.billing.taxes.operations import TaxRateFacts
from control_plane.billing.taxes.tables import TaxRate

router = APIRouter(prefix="/tax-rates", tags=["taxes"])

Country = Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.", examples=["DE"])]
RateId = Annotated[str, Path(pattern=r"^txr_[0-9a-hjkmnp-tv-z]{26}$", description="The tax rate's id.")]


class CreateTaxRate(StrictBody):
    name: Name = Field(description="As invoices call it.", examples=["VAT"])
    percent: Percent
    country: Annotated[
        Country | None, Field(description="Left out: for accounts of which no country is known.")
    ] = None
    region: Annotated[
        Line, Field(description="For buyers there, in place of all rates of the country.", examples=["QC"])
    ] = ""
    scope: Annotated[
        LineScope, Field(description="`fixed`: prices per period and setup fees; `usage`: what is charged by use.")
    ] = LineScope.ALL
    valid_from: Annotated[Moment | None, Field(description="Now if left out.")] = None
    valid_until: Moment | None = None


class EndTaxRate(StrictBody):
    at: Annotated[Moment | None, Field(description="Now if left out.")] = None


class TaxRatesQuery(PageQuery):
    country: Annotated[Country | None, Field(description="Only of this country.")] = None
    valid_at: Annotated[Moment | None, Field(description="Only those valid at this moment.")] = None


class TaxRateAnswer(BaseModel):
    id: str
    name: str
    percent: str
    country: str | None
    region: str | None
    scope: LineScope
    valid_from: Moment
    valid_until: Moment | None = Field(description="Invoices that become final before have it.")
    created_at: Moment


@router.post("", status_code=201)
@allows(Role.FINANCE)
async def create_tax_rate(
    body: CreateTaxRate, session: Database, caller: Authenticated, now: Now
) -> TaxRateAnswer:
    """Add a tax: it is added to the net amount of invoices that become final while it is valid."""
    rate = TaxRateFacts(
        name=body.name,
        percent=Decimal(body.percent),
        country=body.country or "",
        region=body.region,
        scope=body.scope,
        valid_from=body.valid_from or now,
        valid_until=body.valid_until,
    )
    return _answer(await operations.create_tax_rate(session, rate=rate, actor=caller.actor, now=now))


@router.get("")
async def list_tax_rates(session: Database, query: Annotated[TaxRatesQuery, Query()]) -> PageAnswer[TaxRateAnswer]:
    """List tax rates by country and region, those that have ended too."""
    page = await queries.tax_rate_page(
        session, limit=query.limit, cursor=query.cursor, country=query.country, valid_at=query.valid_at
    )
    return page_answer(page, _answer)


@router.post("/{rate_id}/end")
@allows(Role.FINANCE)
async def end_tax_rate(
    rate_id: RateId, body: EndTaxRate, session: Database, caller: Authenticated, now: Now
) -> TaxRateAnswer:
    """Let a rate end, now or later. To change a percentage, end the rate and add another from that moment on."""
    row = await operations.end_tax_rate(session, rate_id=rate_id, at=body.at or now, actor=caller.actor, now=now)
    return _answer(row)


def _answer(row: TaxRate) -> TaxRateAnswer:
    return TaxRateAnswer(
        id=row.id,
        name=row.name,
        percent=percent_text(row.percent) or "",
        country=row.country or None,
        region=row.region or None,
        scope=LineScope(row.scope),
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        created_at=row.created_at,
    )
