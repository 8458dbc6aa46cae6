"""Forecasts of running billing periods."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, CodePath, Moment, MoneyAnswer
from control_plane.admin_api.resources.subscription_answers import PeriodAnswer
from control_plane.admin_api.services import Given, Now
from control_plane.billing.forecasts.model import Forecast, MeterForecast, QuotaForecast, Range, Sureness
from control_plane.billing.forecasts.queries import forecast
from control_plane.billing.invoices.model import ChargeLine
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription

router = APIRouter(prefix="/accounts/{account_id}/forecast", tags=["invoices"])
BY_STRIPE = (
    "Stripe bills it: its invoice has Stripe's own discounts and taxes, cuts fixed prices by the second, and "
    "starts allowances anew after a change of plan. The preview has what Stripe's next invoice will say."
)


class UnitsRangeAnswer(BaseModel):
    """Four times out of five the truth lies from `low` to `high`."""

    low: int
    likely: int
    high: int


class MoneyRangeAnswer(BaseModel):
    """Four times out of five the truth lies from `low` to `high`."""

    low: MoneyAnswer
    likely: MoneyAnswer
    high: MoneyAnswer


class MeterForecastAnswer(BaseModel):
    meter: str
    used_units: int = Field(description="Of the period so far.")
    at_end: UnitsRangeAnswer
    projected: bool = Field(
        description="False where nothing more is expected, and for meters whose values do not add up."
    )


class QuotaForecastAnswer(BaseModel):
    """Moments at which the quota is used up; null: not within the period."""

    quota_units: int
    used_units: int
    on_exceed: str = Field(description="`refuse` or `charge`.")
    likely_at: Moment | None
    earliest_at: Moment | None
    latest_at: Moment | None


class ForecastLineAnswer(BaseModel):
    kind: str
    description: str
    formula: str
    meter: str | None
    amount: MoneyAnswer


class SpendCapForecastAnswer(BaseModel):
    cap: MoneyAnswer
    reached: str = Field(
        description="`yes`, `perhaps` or `no`. What is charged ends at the cap; the range does not."
    )


class ForecastAnswer(BaseModel):
    """What a running billing period will come to, if use goes on as in the last weeks."""

    account_id: str
    account_name: str
    api_product: str
    api_product_name: str
    subscription_id: str
    period: PeriodAnswer
    until: Moment = Field(description="The period's end, or where the subscription ends in it.")
    as_of: Moment
    sureness: Sureness = Field(description="`high`, `medium`, `low`; `none` where nothing was ever used.")
    days_known: int = Field(description="Whole days of use that it stands on.")
    meters: list[MeterForecastAnswer]
    lines: list[ForecastLineAnswer] = Field(description="What is due in the likely case.")
    subtotal_so_far: MoneyAnswer
    subtotal: MoneyRangeAnswer
    total: MoneyRangeAnswer = Field(description="Less discounts, and with taxes.")
    quota: QuotaForecastAnswer | None
    spend_cap: SpendCapForecastAnswer | None
    note: str = Field(
        description="Where Stripe bills: what its invoice reckons otherwise. Empty for own invoices."
    )


@router.get("/{code}")
async def get_forecast(
    account_id: AccountId, code: CodePath, session: Database, services: Given, now: Now
) -> ForecastAnswer:
    """Forecast what the running billing period of an account's subscription to an API product will come to."""
    found = await forecast(
        session,
        account_id=account_id,
        product_code=code,
        now=now,
        seller_country=services.invoice_terms.seller.country,
    )
    answer = _answer(found)
    if await session.get(StripeSubscription, found.subscription_id) is None:
        return answer
    return answer.model_copy(update={"note": BY_STRIPE})


def _answer(found: Forecast) -> ForecastAnswer:
    return ForecastAnswer(
        account_id=found.account_id,
        account_name=found.account_name,
        api_product=found.product_code,
        api_product_name=found.product_name,
        subscription_id=found.subscription_id,
        period=PeriodAnswer(start=found.period.start, end=found.period.end),
        until=found.until,
        as_of=found.as_of,
        sureness=found.sureness,
        days_known=found.days_known,
        meters=[_meter(meter) for meter in found.meters],
        lines=[_line(line) for line in found.lines],
        subtotal_so_far=MoneyAnswer.of(found.subtotal_so_far_minor, found.currency),
        subtotal=_money(found.subtotal, found.currency),
        total=_money(found.total, found.currency),
        quota=_quota(found.quota) if found.quota else None,
        spend_cap=None
        if found.spend_cap_minor is None
        else SpendCapForecastAnswer(
            cap=MoneyAnswer.of(found.spend_cap_minor, found.currency), reached=found.reaches_spend_cap
        ),
        note="",
    )


def _meter(meter: MeterForecast) -> MeterForecastAnswer:
    at_end = UnitsRangeAnswer(low=meter.at_end.low, likely=meter.at_end.likely, high=meter.at_end.high)
    return MeterForecastAnswer(
        meter=meter.meter, used_units=meter.used_units, at_end=at_end, projected=meter.projected
    )


def _line(line: ChargeLine) -> ForecastLineAnswer:
    return ForecastLineAnswer(
        kind=line.kind.value,
        description=line.description,
        formula=line.formula,
        meter=line.meter,
        amount=MoneyAnswer.of(line.amount_minor, line.currency),
    )


def _money(found: Range, currency: str) -> MoneyRangeAnswer:
    return MoneyRangeAnswer(
        low=MoneyAnswer.of(found.low, currency),
        likely=MoneyAnswer.of(found.likely, currency),
        high=MoneyAnswer.of(found.high, currency),
    )


def _quota(quota: QuotaForecast) -> QuotaForecastAnswer:
    return QuotaForecastAnswer(
        quota_units=quota.quota_units,
        used_units=quota.used_units,
        on_exceed="refuse" if quota.hard else "charge",
        likely_at=quota.likely_at,
        earliest_at=quota.earliest_at,
        latest_at=quota.latest_at,
    )
