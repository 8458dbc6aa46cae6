"""Holding calls back while a subscription is past due. Nothing here commits.

The plan, its phases and so what is billed stay as they are: a hold shows in the gateway's record only.
"""

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_ms
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.records import bumped_subscription
from control_plane.subscriptions.tables import PaymentHold

GRACE, BLOCK, FREE = "grace", "block", "free"


async def begin_grace(session: AsyncSession, *, subscription_id: str, now: datetime) -> None:
    """Note since when a subscription is past due; whoever calls this has its account's lock. Nothing holds yet."""
    known = await session.get(PaymentHold, subscription_id, populate_existing=True)
    if known is None:
        session.add(PaymentHold(subscription_id=subscription_id, kind=GRACE, since=floor_ms(now)))
        await session.flush()


async def hold_back(
    session: AsyncSession, *, subscription_id: str, plan_version_id: str | None, actor: str, now: datetime
) -> bool:
    """Refuse calls, or let the terms of a plan version hold, until the subscription is paid; says whether it did.

    One that is not past due (any more) is left alone.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    _, subscription = await bumped_subscription(session, subscription_id, now)
    if subscription.status != Status.PAST_DUE:
        return False
    kind = BLOCK if plan_version_id is None else FREE
    known = await session.get(PaymentHold, subscription_id, populate_existing=True)
    if known is not None and (known.kind, known.plan_version_id) == (kind, plan_version_id):
        return True
    before = None if known is None else _facts(known)
    hold = known or PaymentHold(subscription_id=subscription_id, since=now)
    hold.kind, hold.plan_version_id = kind, plan_version_id
    session.add(hold)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="subscription.held_back",
        entity_type="subscription",
        entity_id=subscription_id,
        before=before,
        after=_facts(hold),
        now=now,
    )
    return True


async def let_go(session: AsyncSession, *, subscription_id: str, actor: str, now: datetime) -> bool:
    """Let a subscription's own terms hold again, though it is past due; says whether they did not.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    await bumped_subscription(session, subscription_id, now)
    hold = await session.get(PaymentHold, subscription_id, populate_existing=True)
    if hold is None or hold.kind == GRACE:
        return False
    before = _facts(hold)
    hold.kind, hold.plan_version_id = GRACE, None
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="subscription.let_go",
        entity_type="subscription",
        entity_id=subscription_id,
        before=before,
        after=_facts(hold),
        now=now,
    )
    return True


async def forget_hold(session: AsyncSession, subscription_id: str) -> None:
    """Drop the hold of a subscription that leaves `past_due`: for whoever moves it, which bumps its version."""
    await session.execute(
        delete(PaymentHold)
        .where(PaymentHold.subscription_id == subscription_id)
        .execution_options(synchronize_session="fetch")
    )


def _facts(hold: PaymentHold) -> dict[str, str | None]:
    return {"hold": hold.kind, "plan_version_id": hold.plan_version_id}
