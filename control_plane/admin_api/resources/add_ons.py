"""Add-ons on a subscription, beside its plan."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Code, CodePath, StrictBody, SubscriptionId
from control_plane.admin_api.resources.subscription_answers import AddOnAnswer, SubscriptionAnswer, one_answer
from control_plane.admin_api.services import Now
from control_plane.admin_api.stripe_changes import ByStripe, followed
from control_plane.billing.operations import require_cap_kept
from control_plane.stripe_sync.subscriptions import add_on_requests as stripe_requests
from control_plane.subscriptions import add_ons, queries

router = APIRouter(tags=["subscriptions"])

Quantity = Annotated[int, Field(strict=True, ge=1, le=add_ons.MAX_QUANTITY)]


class AddAddOn(StrictBody):
    add_on: Annotated[Code, Field(description="The add-on's code; its version on sale is taken.")]
    quantity: Quantity = 1
    allow_unlisted: Annotated[
        bool, Field(strict=True, description="Permit hidden add-ons and add-ons sold by quote.")
    ] = False


class ChangeQuantity(StrictBody):
    quantity: Quantity


class RemoveAddOn(StrictBody):
    at: Annotated[Literal["now", "period_end"], Field(description="`now`, or when the billing period ends.")]


class AddOnsAnswer(BaseModel):
    items: list[AddOnAnswer]


@router.get("/subscriptions/{subscription_id}/add-ons")
async def list_add_ons(subscription_id: SubscriptionId, session: Database, now: Now) -> AddOnsAnswer:
    """List the add-ons in force now or later, oldest first."""
    found = await one_answer(session, await queries.subscription(session, subscription_id), now)
    return AddOnsAnswer(items=found.add_ons)


@router.post("/subscriptions/{subscription_id}/add-ons", status_code=201)
async def create_add_on(
    subscription_id: SubscriptionId,
    *,
    body: AddAddOn,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> SubscriptionAnswer:
    """Add an add-on from now on. Of the same API product, interval and currency as the subscription."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.add_on(
            stripe,
            subscription_id=subscription_id,
            add_on_code=body.add_on,
            quantity=body.quantity,
            allow_unlisted=body.allow_unlisted,
            actor=caller.actor,
        )
        return await one_answer(session, await followed(session, change), now)
    row = await add_ons.add_on(
        session,
        subscription_id=subscription_id,
        add_on_code=body.add_on,
        quantity=body.quantity,
        allow_unlisted=body.allow_unlisted,
        actor=caller.actor,
        now=now,
    )
    await require_cap_kept(session, row, now=now)
    return await one_answer(session, row, now)


@router.put("/subscriptions/{subscription_id}/add-ons/{code}")
async def change_add_on(
    subscription_id: SubscriptionId,
    code: CodePath,
    *,
    body: ChangeQuantity,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> SubscriptionAnswer:
    """Have another quantity from now on, of the version that is held. Repeatable."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.change_quantity(
            stripe,
            subscription_id=subscription_id,
            add_on_code=code,
            quantity=body.quantity,
            actor=caller.actor,
        )
        return await one_answer(session, await followed(session, change), now)
    row = await add_ons.change_quantity(
        session,
        subscription_id=subscription_id,
        add_on_code=code,
        quantity=body.quantity,
        actor=caller.actor,
        now=now,
    )
    await require_cap_kept(session, row, now=now)
    return await one_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/add-ons/{code}/remove")
async def remove_add_on(
    subscription_id: SubscriptionId,
    code: CodePath,
    *,
    body: RemoveAddOn,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> SubscriptionAnswer:
    """End an add-on now, or when the billing period ends."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.remove_add_on(
            stripe, subscription_id=subscription_id, add_on_code=code, at=body.at, actor=caller.actor
        )
        return await one_answer(session, await followed(session, change), now)
    row = await add_ons.remove_add_on(
        session, subscription_id=subscription_id, add_on_code=code, at=body.at, actor=caller.actor, now=now
    )
    return await one_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/add-ons/{code}/keep")
async def keep_add_on(
    subscription_id: SubscriptionId,
    *,
    code: CodePath,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> SubscriptionAnswer:
    """Take a removal at period end back. Without one nothing changes."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.keep_add_on(
            stripe, subscription_id=subscription_id, add_on_code=code, actor=caller.actor
        )
        return await one_answer(session, await followed(session, change), now)
    row = await add_ons.keep_add_on(
        session, subscription_id=subscription_id, add_on_code=code, actor=caller.actor, now=now
    )
    await require_cap_kept(session, row, now=now)
    return await one_answer(session, row, now)
