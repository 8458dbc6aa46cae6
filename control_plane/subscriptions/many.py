"""Subscribing many accounts to one plan at once. Nothing here commits."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_hour, floor_ms
from control_plane.foundation.db import is_any_of
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.operations import new_subscription
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

    The caller has locked the accounts, and seen that they pay in the plan's currency.
    """
    now = floor_ms(now)
    made = {
        account_id: new_subscription(account_id, version, anchor_at=floor_hour(now), now=now)
        for account_id in account_ids
    }
    session.add_all(made.values())
    await session.flush()
    for subscription in made.values():
        add_record(session, subscription, action="subscription.started", before=None, actor=actor, now=now)
    await bump_gateway_versions(session, made, now)
    return made
