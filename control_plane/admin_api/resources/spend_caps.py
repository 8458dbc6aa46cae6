"""Spend caps: the most that a customer pays for a billing period of one subscription."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import MoneyAnswer, StrictBody, SubscriptionId
from control_plane.admin_api.services import Now
from control_plane.billing import operations

router = APIRouter(prefix="/subscriptions/{subscription_id}/spend-cap", tags=["subscriptions"])


class SetSpendCap(StrictBody):
    amount: Annotated[
        str, Field(max_length=32, description="Decimal, in the plan's currency, before tax.", examples=["250.00"])
    ]


class SpendCapAnswer(BaseModel):
    subscription_id: str
    spend_cap: MoneyAnswer | None
    effective: bool = Field(description="False where the plan charges nothing by use, so that nothing is capped.")


@router.put("")
async def set_spend_cap(
    subscription_id: SubscriptionId, body: SetSpendCap, session: Database, caller: Authenticated, now: Now
) -> SpendCapAnswer:
    """Set the most to pay for a billing period, all lines, before tax; gateways know within a second. Repeatable.

    Calls that would cost more are refused with 429 `spend_cap_reached`.
    """
    capped = await operations.set_spend_cap(
        session, subscription_id=subscription_id, amount=body.amount, actor=caller.actor, now=now
    )
    return SpendCapAnswer(
        subscription_id=subscription_id,
        spend_cap=MoneyAnswer.of(capped.amount_minor, capped.currency),
        effective=capped.effective,
    )


@router.delete("")
async def remove_spend_cap(
    subscription_id: SubscriptionId, session: Database, caller: Authenticated, now: Now
) -> SpendCapAnswer:
    """Take the spend cap away. Without one nothing changes."""
    await operations.remove_spend_cap(session, subscription_id=subscription_id, actor=caller.actor, now=now)
    return SpendCapAnswer(subscription_id=subscription_id, spend_cap=None, effective=False)
