"""Invoice previews."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, CodePath, Moment, MoneyAnswer
from control_plane.admin_api.resources.subscription_answers import PeriodAnswer
from control_plane.admin_api.services import Given, Now
from control_plane.admin_api.stripe_invoice_answers import ExpectedInvoiceAnswer
from control_plane.billing.model import InvoiceLine, InvoicePreview
from control_plane.billing.queries import preview_invoice
from control_plane.rating.explain import explain_line
from control_plane.rating.model import TierUse
from control_plane.stripe_sync.invoices.period_preview import as_stripe_bills

router = APIRouter(prefix="/accounts/{account_id}/invoices", tags=["invoices"])


class TierAnswer(BaseModel):
    """The units that fell into one tier of a price."""

    first_unit: int
    last_unit: int | None
    quantity: int
    unit_amount: str
    flat_amount: str


class LineAnswer(BaseModel):
    kind: str = Field(description="`recurring`, `setup_fee`, `usage` or `commitment`.")
    description: str
    formula: str = Field(examples=["12,345 requests above 50,000 × $0.0015"])  # noqa: RUF001 - as on any invoice
    plan: str = Field(description="The plan, or the add-on.")
    plan_version: int
    meter: str | None = Field(description="What was counted; null for a flat price.")
    used_units: int | None = Field(description="All billable units, included ones too.")
    quantity: int = Field(description="What is charged: units, packages, or 1 for a flat price.")
    unit_amount: str | None = Field(description="Decimal, major unit; null where tiers differ.")
    exact_amount: str = Field(description="Decimal, major unit, before rounding half up.")
    amount: MoneyAnswer
    tiers: list[TierAnswer]
    explanation: list[str] = Field(description="How the amount came about, in sentences.")


class QuotaAnswer(BaseModel):
    used_units: int
    quota_units: int
    used_percent: float
    on_exceed: str = Field(description="`refuse` or `charge`.")


class SpendCapLeftAnswer(BaseModel):
    """The customer's spend cap, and what of it is left by the usage counted so far."""

    cap: MoneyAnswer
    left: MoneyAnswer


class DiscountAnswer(BaseModel):
    description: str
    amount: MoneyAnswer


class TaxAnswer(BaseModel):
    name: str
    percent: str = Field(examples=["19"])
    taxable: MoneyAnswer = Field(description="What it is reckoned on, after discounts.")
    amount: MoneyAnswer


class TrialPreviewAnswer(BaseModel):
    """Why the period costs nothing: it is, or was, a trial."""

    ends_at: Moment
    goes_on: bool = Field(description="False where the subscription ends with the trial.")
    lines: list[LineAnswer] = Field(description="What is charged when it ends, before any use.")
    total: MoneyAnswer = Field(description="What these lines come to, less discounts, and with taxes.")


class InvoicePreviewAnswer(BaseModel):
    """What a billing period costs so far, if nothing else changes. Test calls are never in it."""

    account_id: str
    account_name: str
    api_product: str
    api_product_name: str
    subscription_id: str
    period: PeriodAnswer
    as_of: Moment
    lines: list[LineAnswer]
    subtotal: MoneyAnswer = Field(description="The sum of the lines.")
    discounts: list[DiscountAnswer]
    taxes: list[TaxAnswer]
    total: MoneyAnswer = Field(description="The subtotal less discounts, and with taxes.")
    used_units: dict[str, int] = Field(description="Billable units of the period by meter.")
    quota: QuotaAnswer | None
    spend_cap: SpendCapLeftAnswer | None
    trial: TrialPreviewAnswer | None = Field(description="Null for a period that is billed.")
    billed_by: str = Field(description="`own` invoices or `stripe`: then the lines are as Stripe bills them.")
    stripe_invoice: ExpectedInvoiceAnswer | None = Field(
        description="What Stripe's next invoice will say; null where it bills nothing more, or we bill ourselves."
    )


PeriodStart = Annotated[
    Moment | None, Query(description="Any moment of the billing period; the running, or last, one if left out.")
]


@router.get("/preview/{code}")
async def get_invoice_preview(
    account_id: AccountId,
    code: CodePath,
    *,
    session: Database,
    services: Given,
    now: Now,
    period_start: PeriodStart = None,
) -> InvoicePreviewAnswer:
    """Preview what a billing period of an account's subscription to an API product costs.

    What Stripe bills is reckoned as Stripe does, before taxes.
    """
    preview = await preview_invoice(
        session,
        account_id=account_id,
        product_code=code,
        now=now,
        period_start=period_start,
        seller_country=services.invoice_terms.seller.country,
    )
    at_stripe = await as_stripe_bills(session, preview, now=now)
    if at_stripe is None:
        return answer(preview)
    following = at_stripe.next_invoice
    return answer(at_stripe.preview).model_copy(
        update={
            "billed_by": "stripe",
            "stripe_invoice": None if following is None else ExpectedInvoiceAnswer.of(following),
        }
    )


def answer(preview: InvoicePreview) -> InvoicePreviewAnswer:
    quota = preview.quota and QuotaAnswer(
        used_units=preview.quota.used_units,
        quota_units=preview.quota.quota_units,
        used_percent=float(preview.quota.used_percent),
        on_exceed="refuse" if preview.quota.hard else "charge",
    )
    return InvoicePreviewAnswer(
        account_id=preview.account_id,
        account_name=preview.account_name,
        api_product=preview.product_code,
        api_product_name=preview.product_name,
        subscription_id=preview.subscription_id,
        period=PeriodAnswer(start=preview.period.start, end=preview.period.end),
        as_of=preview.as_of,
        lines=[_line(line) for line in preview.lines],
        subtotal=MoneyAnswer.of(preview.subtotal_minor, preview.currency),
        discounts=[
            DiscountAnswer(
                description=discount.description,
                amount=MoneyAnswer.of(discount.amount_minor, preview.currency),
            )
            for discount in preview.discounts
        ],
        taxes=[
            TaxAnswer(
                name=tax.name,
                percent=_decimal(tax.percent.normalize()),
                taxable=MoneyAnswer.of(tax.taxable_minor, preview.currency),
                amount=MoneyAnswer.of(tax.amount_minor, preview.currency),
            )
            for tax in preview.taxes
        ],
        total=MoneyAnswer.of(preview.total_minor, preview.currency),
        used_units=dict(preview.used_units),
        quota=quota,
        spend_cap=_spend_cap(preview),
        trial=_trial(preview),
        billed_by="own",
        stripe_invoice=None,
    )


def _spend_cap(preview: InvoicePreview) -> SpendCapLeftAnswer | None:
    cap, left = preview.spend_cap_minor, preview.spend_cap_left_minor
    if cap is None or left is None:
        return None
    return SpendCapLeftAnswer(
        cap=MoneyAnswer.of(cap, preview.currency), left=MoneyAnswer.of(left, preview.currency)
    )


def _trial(preview: InvoicePreview) -> TrialPreviewAnswer | None:
    trial = preview.trial
    if trial is None:
        return None
    return TrialPreviewAnswer(
        ends_at=trial.ends_at,
        goes_on=trial.goes_on,
        lines=[_line(line) for line in trial.lines],
        total=MoneyAnswer.of(trial.total_minor, preview.currency),
    )


def _line(line: InvoiceLine) -> LineAnswer:
    rated = line.line
    return LineAnswer(
        kind=line.kind,
        description=rated.description,
        formula=rated.formula,
        plan=line.plan_code,
        plan_version=line.plan_version,
        meter=line.meter,
        used_units=line.used_units,
        quantity=rated.quantity,
        unit_amount=None if rated.unit_amount is None else _decimal(rated.unit_amount),
        exact_amount=_decimal(rated.exact_amount),
        amount=MoneyAnswer.of(rated.amount_minor, rated.currency),
        tiers=[_tier(tier) for tier in rated.tiers],
        explanation=list(explain_line(rated, used_units=line.used_units, unit=line.unit)),
    )


def _tier(tier: TierUse) -> TierAnswer:
    return TierAnswer(
        first_unit=tier.first_unit,
        last_unit=tier.last_unit,
        quantity=tier.quantity,
        unit_amount=_decimal(tier.unit_amount),
        flat_amount=_decimal(tier.flat_amount),
    )


def _decimal(value: Decimal) -> str:
    return f"{value:f}"
