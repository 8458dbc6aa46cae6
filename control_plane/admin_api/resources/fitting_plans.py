"""Which plan would have fitted a subscription's last 30 days, and why: a part of its answer."""

from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.forms import Moment, MoneyAnswer
from control_plane.gateway_sync.tables import UpgradeHint


class DemandAnswer(BaseModel):
    """What was asked for with live keys."""

    days: int
    units: dict[str, int] = Field(
        description="By meter. `requests`: quota units served, and one for each refused call."
    )
    refused_calls: int = Field(description="By a rate limit or the quota.")
    rate_limited_calls: int
    peak_hour_calls: int = Field(description="Calls of the busiest hour.")


class OfferAnswer(BaseModel):
    """A larger plan on sale."""

    plan: str
    name: str
    price: MoneyAnswer | None = Field(
        description="What the demand would cost a billing period; null by quote, or where it cannot be worked out."
    )
    refuses: str = Field(description="Why it would have refused calls; empty where it would not.")


class FittingPlanAnswer(BaseModel):
    """Callers read the plan's name when they are refused, until a newer one is worked out (once an hour)."""

    plan: str | None = Field(description="Its code; null where nothing larger is on sale.")
    computed_at: Moment
    demand: DemandAnswer
    offers: list[OfferAnswer] = Field(description="The larger plans on sale, the one that fits best first.")


async def fitting_plan(session: AsyncSession, subscription_id: str) -> FittingPlanAnswer | None:
    """Return what was last worked out, None while nothing was (a subscription without usage)."""
    hint = await session.get(UpgradeHint, subscription_id)
    if hint is None:
        return None
    return FittingPlanAnswer(
        plan=hint.fitting_plan,
        computed_at=hint.computed_at,
        demand=DemandAnswer(**hint.demand),
        offers=[
            OfferAnswer(
                plan=offer["plan"],
                name=offer["name"],
                price=None
                if offer["amount_minor"] is None
                else MoneyAnswer.of(offer["amount_minor"], offer["currency"]),
                refuses=offer["refuses"],
            )
            for offer in hint.offers
        ],
    )
