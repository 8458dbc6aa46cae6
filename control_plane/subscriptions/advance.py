"""What time and the catalogue do to subscriptions: planned phases begin, trials and cancelled subscriptions end,
spend caps are compiled for another billing period.

A worker calls `advance` every second or so and commits; many workers may.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.accounts.tables import Account
from control_plane.foundation.db import is_any_of
from control_plane.foundation.outbox import Topic, claim, enqueue_many, finish
from control_plane.subscriptions.cap_renewal import renew_cap
from control_plane.subscriptions.model import OVER, Advanced
from control_plane.subscriptions.records import begin_phases, end_in_time
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase

MAX_PRODUCT_ROWS = 100


async def advance(session: AsyncSession, *, now: datetime, limit: int = 500) -> Advanced:
    """Do what is due at `now`, at most `limit` phases, ends and caps; call again while it did something.

    Idempotent: what was done is not done again, also when two workers look at the same moment.
    """
    rows = await claim(session, topics=[Topic.PRODUCT_CHANGED], limit=MAX_PRODUCT_ROWS)
    told = await _subscribers(session, {row.entity_id for row in rows})
    due = await _due_accounts(session, now, limit)
    if not rows and not due:
        return Advanced(0, 0, 0, 0)
    # accounts are locked before anything of theirs, as in every operation, and all at once in one order; what
    # another worker has done while we waited is no longer due when we look again
    accounts = select(Account.id).where(is_any_of(Account.id, told | due)).order_by(Account.id)
    locked = accounts.with_for_update(key_share=True)
    await session.execute(locked)
    subscriptions = await _due_subscriptions(session, due, now) if due else []
    begun = ended = renewed = 0
    billed_anew = []
    for subscription in subscriptions:
        begins, ends = begin_phases(session, subscription, now), end_in_time(session, subscription, now)
        begun, ended = begun + begins, ended + ends
        if begins or ends:
            billed_anew.append(subscription.id)
        renewed += subscription.spend_cap_due_at is not None and subscription.spend_cap_due_at <= now
        renew_cap(subscription, now)
    await session.flush()
    changed = told | {subscription.account_id for subscription in subscriptions}
    await bump_gateway_versions(session, changed, now)
    await enqueue_many(session, topic=Topic.SUBSCRIPTION_CHANGED, entity_ids=billed_anew, now=now)
    await finish(session, [row.id for row in rows], now)
    return Advanced(len(told), begun, ended, renewed)


async def _subscribers(session: AsyncSession, product_ids: set[str]) -> set[str]:
    if not product_ids:
        return set()
    statement = select(Subscription.account_id).where(Subscription.api_product_id.in_(product_ids), _LIVE)
    return set(await session.scalars(statement))


async def _due_accounts(session: AsyncSession, now: datetime, limit: int) -> set[str]:
    beginning = (
        select(Subscription.account_id)
        .join(SubscriptionPhase, SubscriptionPhase.subscription_id == Subscription.id)
        .where(SubscriptionPhase.applied_at.is_(None), SubscriptionPhase.starts_at <= now)
        .limit(limit)
    )
    ending = select(Subscription.account_id).where(_LIVE, Subscription.ends_at <= now).limit(limit)
    capped = select(Subscription.account_id).where(_LIVE, Subscription.spend_cap_due_at <= now).limit(limit)
    return set(await session.scalars(union_all(beginning, ending, capped)))


async def _due_subscriptions(
    session: AsyncSession, account_ids: set[str], now: datetime
) -> Sequence[Subscription]:
    waiting = and_(SubscriptionPhase.applied_at.is_(None), SubscriptionPhase.starts_at <= now)
    statement = (
        select(Subscription)
        .where(
            is_any_of(Subscription.account_id, account_ids),
            Subscription.phases.any(waiting)
            | (_LIVE & ((Subscription.ends_at <= now) | (Subscription.spend_cap_due_at <= now))),
        )
        .order_by(Subscription.id)
        .options(selectinload(Subscription.phases), selectinload(Subscription.add_ons))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).all()


_LIVE = Subscription.status.not_in(sorted(OVER))
