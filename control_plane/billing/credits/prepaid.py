"""What usage of prepaid subscriptions may cost, and telling gateways when that changes. Nothing here commits.

The limit of a billing period is what its usage has drawn, and what is left. A draw moves an amount from the one to
the other, so it changes no limit: gateways need to be told of grants, of what expires, of reservations and of what
others draw, never of a subscription's own usage.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.accounts.tables import Account
from control_plane.billing.credits.tables import CreditGrant, PrepaidPeriod
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepaidSubscription:
    """A live subscription whose plan in force is paid for ahead; `period` holds the moment it was read for."""

    id: str
    account_id: str
    api_product_id: str
    currency: str
    period: BillingPeriod


async def prepaid_limits(
    session: AsyncSession, subscription_ids: Collection[str], *, now: datetime
) -> dict[str, int]:
    """Return what usage may cost in the billing period that holds `now`, in minor units before tax.

    Only subscriptions whose plan in force is prepaid are in it; 0: nothing is left. It is what usage of this
    period has drawn from credits already, and what of the account's credits can be used for it now: begun, not
    expired, not held by reservations. What earlier periods have used and not drawn yet is taken off.
    """
    found = await _prepaid(session, is_any_of(Subscription.id, subscription_ids), now) if subscription_ids else []
    return await _limits(session, found, now)


async def prepaid_of_accounts(
    session: AsyncSession, account_ids: Collection[str], *, now: datetime
) -> list[PrepaidSubscription]:
    """Return the accounts' live subscriptions whose plan in force is prepaid, in the order of their ids."""
    return await _prepaid(session, is_any_of(Subscription.account_id, account_ids), now) if account_ids else []


async def without_period(session: AsyncSession, *, now: datetime, limit: int) -> list[PrepaidSubscription]:
    """Return prepaid subscriptions of which no period is open that holds `now`: it has just begun."""
    opened = exists().where(
        PrepaidPeriod.subscription_id == Subscription.id,
        PrepaidPeriod.period_start <= now,
        PrepaidPeriod.period_end > now,
    )
    return await _prepaid(session, ~opened, now, limit)


@asynccontextmanager
async def limits_told(
    session: AsyncSession, account_ids: Collection[str], *, now: datetime
) -> AsyncIterator[None]:
    """Tell gateways of the accounts of which a prepaid limit is another one afterwards.

    The caller holds the accounts' locks.
    """
    subscriptions = await prepaid_of_accounts(session, account_ids, now=now)
    before = await _limits(session, subscriptions, now)
    yield
    await session.flush()
    after = await _limits(session, subscriptions, now)
    changed = {one.account_id for one in subscriptions if before[one.id] != after[one.id]}
    if changed:
        await bump_gateway_versions(session, changed, now)


async def _prepaid(
    session: AsyncSession, where: ColumnElement[bool], now: datetime, limit: int | None = None
) -> list[PrepaidSubscription]:
    statement = (
        select(
            Subscription.id,
            Subscription.account_id,
            Subscription.api_product_id,
            Account.currency,
            Subscription.anchor_at,
            Subscription.interval,
            Subscription.time_zone,
        )
        .join(Account, Account.id == Subscription.account_id)
        .join(SubscriptionPhase, SubscriptionPhase.subscription_id == Subscription.id)
        .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
        .where(
            where,
            Subscription.status.not_in(sorted(OVER)),
            SubscriptionPhase.starts_at <= now,
            or_(SubscriptionPhase.ends_at.is_(None), SubscriptionPhase.ends_at > now),
            SubscriptionPhase.kind == "paid",
            PlanVersion.payment == "prepaid",
        )
        .order_by(Subscription.id)
        .limit(limit)
    )
    return [
        PrepaidSubscription(
            id=id_,
            account_id=account_id,
            api_product_id=product_id,
            currency=currency,
            period=period_containing(now, anchor_at, interval, time_zone),
        )
        for id_, account_id, product_id, currency, anchor_at, interval, time_zone in await session.execute(
            statement
        )
    ]


async def _limits(
    session: AsyncSession, subscriptions: Collection[PrepaidSubscription], now: datetime
) -> dict[str, int]:
    if not subscriptions:
        return {}
    left = await _left(session, {one.account_id for one in subscriptions}, now)
    periods: dict[str, list[PrepaidPeriod]] = defaultdict(list)
    statement = select(PrepaidPeriod).where(
        is_any_of(PrepaidPeriod.subscription_id, {one.id for one in subscriptions}),
        PrepaidPeriod.invoice_id.is_(None) | (PrepaidPeriod.period_end > now),
    )
    for row in await session.scalars(statement):
        periods[row.subscription_id].append(row)
    return {one.id: _limit(one, left, periods[one.id]) for one in subscriptions}


def _limit(
    one: PrepaidSubscription, left: Mapping[tuple[str, str, str | None], int], periods: Iterable[PrepaidPeriod]
) -> int:
    of_product = left.get((one.account_id, one.currency, one.api_product_id), 0)
    limit = of_product + left.get((one.account_id, one.currency, None), 0)
    for row in periods:
        if row.period_start == one.period.start:
            limit += row.drawn_minor
        elif row.period_start < one.period.start and row.invoice_id is None:
            limit -= max(0, row.used_minor - row.drawn_minor)
    return max(0, limit)


async def _left(
    session: AsyncSession, account_ids: Collection[str], now: datetime
) -> dict[tuple[str, str, str | None], int]:
    """Return what is left by account, currency and API product (None: whatever the product)."""
    place = (CreditGrant.account_id, CreditGrant.currency, CreditGrant.api_product_id)
    statement = (
        select(*place, func.sum(CreditGrant.remaining_minor))
        .where(
            is_any_of(CreditGrant.account_id, account_ids),
            CreditGrant.remaining_minor > 0,
            CreditGrant.starts_at <= now,
            or_(CreditGrant.expires_at.is_(None), CreditGrant.expires_at > now),
        )
        .group_by(*place)
    )
    return {
        (account, currency, product): int(total)
        for account, currency, product, total in await session.execute(statement)
    }
