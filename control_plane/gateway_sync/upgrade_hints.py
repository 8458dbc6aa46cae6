"""Upgrade hints: for each subscription the plan that would have fitted its last 30 days, kept up to date.

Every hour the hints of subscriptions with usage since the last one are worked out anew, page by page through all
subscriptions, never for longer than it pauses; those that a change of plan or quota made void, at once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Interval, Row, Select, and_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.billing.comparisons.demand import demand_from, demands
from control_plane.billing.comparisons.fitting_plans import Demand, Held, Offer, choose_fitting_plan
from control_plane.catalog.model import PLAN
from control_plane.catalog.queries import plan_versions, plans, published_versions, terms_of_version
from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.outbox import Topic, claim, enqueue_many, finish
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.tables import UpgradeHint, hint_basis
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.tables import UsageHour

log = structlog.get_logger(__name__)

# what a spoiled row raises; anything else (a database that is away) may go better later
SPOILED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, DataError, IntegrityError)
PAGE = 1000
# a busy account has tens of thousands of rollup rows in 30 days
AT_ONCE = 50
MAX_VOID = 200
# an hour's rollup is written again until it is sealed, somewhat after the hour
SEALED_AFTER = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class HintPage:
    """Of a page of subscriptions those whose hints are due; `last_id` None where no subscription was left."""

    due: tuple[str, ...]
    last_id: str | None


async def due_after(session: AsyncSession, last_id: str, *, now: datetime, limit: int = PAGE) -> HintPage:
    """Look through the next `limit` live subscriptions in the order of their ids for usage since their hint."""
    page = (
        select(Subscription.id, Subscription.account_id)
        .where(Subscription.id > last_id, Subscription.status.not_in(sorted(OVER)))
        .order_by(Subscription.id)
        .limit(limit)
        .subquery()
        .c
    )
    # two steps into an index for each account: most have no usage, and cost no more than that
    news = (
        select(UsageHour.hour)
        .where(
            UsageHour.account_id == page.account_id,
            UsageHour.hour
            >= func.coalesce(UpgradeHint.computed_at - literal(SEALED_AFTER, Interval()), demand_from(now)),
            or_(UpgradeHint.computed_at.is_(None), UsageHour.aggregated_at > UpgradeHint.computed_at),
        )
        .exists()
    )
    statement = (
        select(page.id, news.label("due"))
        .outerjoin(UpgradeHint, UpgradeHint.subscription_id == page.id)
        .order_by(page.id)
    )
    rows = (await session.execute(statement)).all()
    return HintPage(tuple(row.id for row in rows if row.due), rows[-1].id if rows else None)


async def refresh_hints(
    sessions: async_sessionmaker[AsyncSession], subscription_ids: Sequence[str], *, now: datetime
) -> int:
    """Work hints out anew; returns how many name another plan than before. Repeatable."""
    changed = 0
    for start in range(0, len(subscription_ids), AT_ONCE):
        async with sessions() as session, session.begin():
            changed += await _write_usable(session, subscription_ids[start : start + AT_ONCE], now=now)
    return changed


async def refresh_void_hints(sessions: async_sessionmaker[AsyncSession], *, now: datetime) -> int:
    """Work out anew what the projector found void, up to 200 subscriptions; returns how many it was told of."""
    async with sessions() as session, session.begin():
        rows = await claim(session, topics=(Topic.UPGRADE_HINT_VOID,), limit=MAX_VOID)
        await _write_usable(session, {row.entity_id for row in rows}, now=now)
        await finish(session, [row.id for row in rows], now)
    return len(rows)


async def _write_usable(session: AsyncSession, subscription_ids: Collection[str], *, now: datetime) -> int:
    """Write hints as `write_hints` does, but for those that cannot be worked out: these hold up no others.

    Each of these is counted and logged, and stays void until its next change or round.
    """
    try:
        async with session.begin_nested():
            return await write_hints(session, subscription_ids, now=now)
    except SPOILED as error:
        if len(subscription_ids) == 1:
            metrics.UNUSABLE.labels("upgrade_hint").inc()
            log.error(  # noqa: TRY400 - its trace says nothing more
                "an upgrade hint cannot be worked out", entity_id=min(subscription_ids), error=repr(error)
            )
            return 0
    # in the order in which everybody writes
    ids = sorted(subscription_ids)
    half = len(ids) // 2
    return sum([await _write_usable(session, part, now=now) for part in (ids[:half], ids[half:])])


async def write_hints(session: AsyncSession, subscription_ids: Collection[str], *, now: datetime) -> int:
    """Work out and write hints; returns how many name another plan than before. Those that are over are left out.

    The account's version stays as it is, the projector writes another form of it.
    """
    held = (await session.execute(_held(subscription_ids, now))).all() if subscription_ids else []
    if not held:
        return 0
    wanted = await demands(session, {row.account_id for row in held}, now=now)
    versions = await plan_versions(session, {row.plan_version_id for row in held})
    offers = {code: await _offers(session, code) for code in {row.product for row in held}}
    values = [
        _hint(row, versions[row.plan_version_id], offers[row.product], wanted.get((row.account_id, row.product)))
        | {"computed_at": now}
        for row in held
    ]
    fresh = insert(UpgradeHint).values(values)
    named = ("computed_at", "basis", "fitting_plan", "demand", "offers")
    await session.execute(
        fresh.on_conflict_do_update(
            index_elements=[UpgradeHint.subscription_id], set_={name: fresh.excluded[name] for name in named}
        )
    )
    changed = {
        row.account_id
        for row, value in zip(held, values, strict=True)
        if (row.old_basis, row.old_plan) != (value["basis"], value["fitting_plan"])
    }
    await enqueue_many(session, topic=Topic.ACCOUNT_CHANGED, entity_ids=changed, now=now)
    metrics.UPGRADE_HINTS.labels("changed").inc(len(changed))
    metrics.UPGRADE_HINTS.labels("same").inc(len(values) - len(changed))
    return len(changed)


def _held(subscription_ids: Collection[str], now: datetime) -> Select[Any]:
    running: ColumnElement[bool] = and_(
        SubscriptionPhase.subscription_id == Subscription.id,
        SubscriptionPhase.starts_at <= now,
        or_(SubscriptionPhase.ends_at.is_(None), SubscriptionPhase.ends_at > now),
    )
    return (
        select(
            Subscription.id,
            Subscription.account_id,
            Account.currency,
            Subscription.overrides,
            SubscriptionPhase.plan_version_id,
            ApiProduct.code.label("product"),
            UpgradeHint.basis.label("old_basis"),
            UpgradeHint.fitting_plan.label("old_plan"),
        )
        .join(Account, Account.id == Subscription.account_id)
        .join(SubscriptionPhase, running)
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .outerjoin(UpgradeHint, UpgradeHint.subscription_id == Subscription.id)
        .where(is_any_of(Subscription.id, subscription_ids), Subscription.status.not_in(sorted(OVER)))
        .order_by(Subscription.id)  # everybody writes in this order, so nobody waits in a circle
    )


async def _offers(session: AsyncSession, product_code: str) -> tuple[Offer, ...]:
    on_sale = await plans(session, product_code=product_code, public_only=True, kind=PLAN)
    versions = await published_versions(session, [plan.id for plan in on_sale])
    return tuple(
        Offer(code=plan.code, name=plan.name, position=plan.position, terms=terms_of_version(versions[plan.id]))
        for plan in on_sale
        if plan.id in versions
    )


def _hint(row: Row[Any], version: PlanVersion, offers: Collection[Offer], demand: Demand | None) -> dict[str, Any]:
    demand = demand or Demand()
    currency = row.currency
    suited = [
        replace(offer, terms=offer.terms.in_currency(currency))
        for offer in offers
        if offer.terms.is_sold_in(currency)
    ]
    held = Held(
        code=version.plan.code,
        quota_units=row.overrides.get("quota_units", version.quota_units),
        terms=terms_of_version(version).in_currency(currency),
    )
    judged = choose_fitting_plan(suited, held=held, demand=demand)
    return {
        "subscription_id": row.id,
        "basis": hint_basis(row),
        "fitting_plan": judged[0].plan if judged else None,
        "demand": demand.as_dict(),
        "offers": [offer.as_dict() for offer in judged],
    }
