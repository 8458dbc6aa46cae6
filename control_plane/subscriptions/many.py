"""Subscribing many accounts to one plan at once. Nothing here commits."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.accounts.tables import Account
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_hour, floor_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.outbox import Topic, enqueue_many
from control_plane.subscriptions.beginnings import accounts_new_to, new_subscription, trial_end
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.records import add_record
from control_plane.subscriptions.tables import Subscription


async def live_subscriptions_to(
    session: AsyncSession, account_ids: Collection[str], *, api_product_id: str
) -> dict[str, Subscription]:
    """Return, by account, the subscriptions to an API product that are not over, with their phases."""
    statement = (
        select(Subscription)
        .where(
            is_any_of(Subscription.account_id, account_ids),
            Subscription.api_product_id == api_product_id,
            Subscription.status.not_in(sorted(OVER)),
        )
        .options(selectinload(Subscription.phases))
    )
    return {found.account_id: found for found in await session.scalars(statement)}


async def subscribe_accounts(
    session: AsyncSession, account_ids: Collection[str], *, version: PlanVersion, actor: str, now: datetime
) -> dict[str, Subscription]:
    """Put accounts without a subscription to the plan's product on it, from now on; returns them by account.

    Those that are new to the API product get the plan's trial. The caller has locked the accounts, and seen that
    they pay in the plan's currency.
    """
    now = floor_ms(now)
    trial_ends_at = None if version.trial_days is None else trial_end(version, now)
    given: set[str] = set()
    if trial_ends_at is not None:
        given = await accounts_new_to(session, account_ids, api_product_id=version.plan.api_product_id)
    of_accounts = select(Account.id, Account.time_zone).where(is_any_of(Account.id, account_ids))
    made = {
        account_id: new_subscription(
            account_id,
            version,
            anchor_at=trial_ends_at if trial_ends_at and account_id in given else floor_hour(now),
            time_zone=time_zone,
            trial_ends_at=trial_ends_at if account_id in given else None,
            now=now,
        )
        for account_id, time_zone in await session.execute(of_accounts)
    }
    session.add_all(made.values())
    await session.flush()
    for subscription in made.values():
        add_record(session, subscription, action="subscription.started", before=None, actor=actor, now=now)
    await bump_gateway_versions(session, made, now)
    sold = [subscription.id for subscription in made.values()]
    await enqueue_many(session, topic=Topic.SUBSCRIPTION_CHANGED, entity_ids=sold, now=now)
    return made
