"""Subscriptions that ended unpaid at Stripe: by policy the free plan goes on."""

from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import Plan, PlanVersion, Price
from control_plane.dunning.model import DunningConfig
from control_plane.dunning.plans import free_plan_version, plan_names
from control_plane.dunning.tables import DunningCase
from control_plane.foundation.errors import KmError
from control_plane.notifications.model import MailKind
from control_plane.notifications.queue import queue_mail
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeSubscription
from control_plane.subscriptions.operations import subscribe
from control_plane.subscriptions.tables import Subscription

SYSTEM = "system"
_CANCELS = ("cancel", "cancel_now")
_UNDONE = ("refused", "withdrawn")


async def after_the_end(
    session: AsyncSession, case: DunningCase, subscription: Subscription, *, config: DunningConfig, now: datetime
) -> None:
    """Tell of an end that nobody asked for; where the policy is the free plan, begin it at the same time."""
    if not await _ended_unpaid(session, subscription):
        return
    free = None
    if case.after == "free":
        free = await _begin_free_plan(session, subscription, config=config, now=now)
    names = await plan_names(session, subscription.id)
    await queue_mail(
        session,
        kind=MailKind.SUBSCRIPTION_ENDED,
        cause=f"{case.id}:ended",
        account_id=case.account_id,
        values={"product": names.product, "plan": names.plan, "free_plan": free},
        now=now,
    )


async def _ended_unpaid(session: AsyncSession, subscription: Subscription) -> bool:
    """Say whether Stripe ended it after its last attempt to collect: nobody had cancelled it through us."""
    if subscription.billed_by != "stripe":
        return False
    at_stripe = await session.get(StripeSubscription, subscription.id)
    if at_stripe is None or at_stripe.status != "canceled" or at_stripe.cancel_at_period_end:
        return False
    wanted = exists().where(
        StripeChange.subscription_id == subscription.id,
        StripeChange.kind.in_(_CANCELS),
        StripeChange.state.not_in(_UNDONE),
    )
    return not await session.scalar(select(wanted))


async def _begin_free_plan(
    session: AsyncSession, subscription: Subscription, *, config: DunningConfig, now: datetime
) -> str | None:
    """Subscribe to the free plan of the same API product, if that costs nothing; returns its name."""
    version_id = await free_plan_version(session, subscription.api_product_id, config=config)
    if version_id is None or await session.scalar(select(exists().where(Price.plan_version_id == version_id))):
        return None
    code, name = (
        await session.execute(
            select(Plan.code, Plan.name)
            .join(PlanVersion, PlanVersion.plan_id == Plan.id)
            .where(PlanVersion.id == version_id)
        )
    ).one()
    try:
        async with session.begin_nested():
            await subscribe(
                session,
                account_id=subscription.account_id,
                plan_code=code,
                trial=False,
                allow_unlisted=True,
                actor=SYSTEM,
                now=now,
            )
    except KmError:  # deleted, subscribed again meanwhile, another currency: then it just ends
        return None
    return str(name)
