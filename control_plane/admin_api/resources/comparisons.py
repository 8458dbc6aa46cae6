"""What the same use would cost on each plan."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.admin_api.access import reads_only
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, CodePath, MoneyAnswer, StrictBody
from control_plane.admin_api.resources.fitting_plans import DemandAnswer
from control_plane.admin_api.services import Now
from control_plane.billing.comparisons.model import ComparedPlan, Comparison
from control_plane.billing.comparisons.queries import compare_last_month, compare_units

router = APIRouter(tags=["plans"])
MAX_UNITS = 10**15


class CompareUnits(StrictBody):
    currency: Annotated[str, Field(min_length=3, max_length=3, examples=["USD"])]
    units: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")],
            Annotated[int, Field(strict=True, ge=0, le=MAX_UNITS)],
        ],
        Field(max_length=50, description="Units of a month by meter.", examples=[{"requests": 1_000_000}]),
    ]


class ComparedLineAnswer(BaseModel):
    description: str
    formula: str
    amount: MoneyAnswer


class ComparedPlanAnswer(BaseModel):
    """Amounts are null where the plan is sold by quote, or its prices cannot be worked out."""

    plan: str
    name: str
    version: int
    interval: str
    by_quote: bool
    public: bool = Field(description="Anybody may take it.")
    held: bool = Field(description="The account has it.")
    monthly: MoneyAnswer | None
    yearly: MoneyAnswer | None
    setup_fee: MoneyAnswer = Field(description="Due once, and not in the amounts.")
    lines: list[ComparedLineAnswer] = Field(description="Of a billing period.")
    refused_units: int = Field(
        description="Quota units of a billing period that it would have refused; they are not charged."
    )
    refuses: str = Field(description="Why it would have refused calls; empty where it would not.")


class ComparisonAnswer(BaseModel):
    """What the use of 30 days costs on each plan, the cheapest first. Without add-ons, discounts and taxes."""

    api_product: str
    api_product_name: str
    demand: DemandAnswer
    cheapest_fitting: str | None = Field(description="The cheapest plan that would have refused nothing.")
    plans: list[ComparedPlanAnswer]
    not_sold: list[str] = Field(description="Public plans without prices in the currency.")


@router.get("/accounts/{account_id}/comparison/{code}")
async def get_comparison(account_id: AccountId, code: CodePath, session: Database, now: Now) -> ComparisonAnswer:
    """Say what an account's last 30 days would cost on each plan of an API product that is on sale."""
    return _answer(await compare_last_month(session, account_id=account_id, product_code=code, now=now))


@router.post("/products/{code}/comparison")
@reads_only
async def compare_given_units(code: CodePath, body: CompareUnits, session: Database) -> ComparisonAnswer:
    """Say what given units of a month would cost on each plan of an API product that is on sale."""
    return _answer(await compare_units(session, product_code=code, units=body.units, currency=body.currency))


def _answer(found: Comparison) -> ComparisonAnswer:
    return ComparisonAnswer(
        api_product=found.product_code,
        api_product_name=found.product_name,
        demand=DemandAnswer(**found.demand.as_dict()),
        cheapest_fitting=found.cheapest_fitting,
        plans=[_plan(one, found.currency) for one in found.plans],
        not_sold=list(found.not_sold),
    )


def _plan(found: ComparedPlan, currency: str) -> ComparedPlanAnswer:
    def money(amount_minor: int | None) -> MoneyAnswer | None:
        return None if amount_minor is None else MoneyAnswer.of(amount_minor, currency)

    plan = found.plan
    return ComparedPlanAnswer(
        plan=plan.code,
        name=plan.name,
        version=plan.version,
        interval=plan.terms.interval,
        by_quote=plan.terms.by_quote,
        public=plan.public,
        held=plan.held,
        monthly=money(found.monthly_minor),
        yearly=money(found.yearly_minor),
        setup_fee=MoneyAnswer.of(found.setup_fee_minor, currency),
        lines=[
            ComparedLineAnswer(
                description=line.line.description,
                formula=line.line.formula,
                amount=MoneyAnswer.of(line.line.amount_minor, currency),
            )
            for line in found.lines
        ],
        refused_units=found.refused_units,
        refuses=found.refuses,
    )
