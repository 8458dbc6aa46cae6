"""Reading subscriptions and their phases."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ARRAY, Text, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.db import UtcDateTime
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.subscriptions.model import OVER, PhaseSpan, Status
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase

_OVER = sorted(OVER)


async def subscription(session: AsyncSession, subscription_id: str) -> Subscription:
    """Return a subscription with its phases and add-ons, over or not.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(Subscription).where(Subscription.id == subscription_id).options(_PHASES, _ADD_ONS)
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("subscription", subscription_id)
    return found


async def subscriptions_of_account(session: AsyncSession, account_id: str) -> Sequence[Subscription]:
    """Return all subscriptions of an account with their phases and add-ons, newest first."""
    statement = (
        select(Subscription)
        .where(Subscription.account_id == account_id)
        .order_by(Subscription.started_at.desc(), Subscription.id.desc())
        .options(_PHASES, _ADD_ONS)
    )
    return (await session.scalars(statement)).all()


async def live_subscriptions(session: AsyncSession, account_id: str) -> Sequence[Subscription]:
    """Return the account's subscriptions that are not over, with their phases."""
    statement = (
        select(Subscription)
        .where(Subscription.account_id == account_id, Subscription.status.not_in(_OVER))
        .order_by(Subscription.id)
        .options(_PHASES)
    )
    return (await session.scalars(statement)).all()


async def live_subscription(session: AsyncSession, account_id: str, product_code: str) -> Subscription | None:
    """Return the account's subscription to an API product that is not over, with its phases, or None."""
    statement = (
        select(Subscription)
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .where(
            Subscription.account_id == account_id,
            Subscription.status.not_in(_OVER),
            ApiProduct.code == product_code,
        )
        .options(_PHASES)
    )
    return (await session.scalars(statement)).one_or_none()


async def phases_for_hours(
    session: AsyncSession, spans: Collection[tuple[str, datetime, datetime]]
) -> list[PhaseSpan]:
    """Return every phase that has a moment in common with one of the spans (account, from, to), half-open.

    Phases of subscriptions that are over are there too: their usage still arrives. Ordered by account, product
    and start; each phase once.
    """
    if not spans:
        return []
    accounts, starts, ends = zip(*spans, strict=True)
    asked = (
        func.unnest(
            cast(list(accounts), ARRAY(Text())),
            cast(list(starts), ARRAY(UtcDateTime())),
            cast(list(ends), ARRAY(UtcDateTime())),
        )
        .table_valued("account_id", "starts_at", "ends_at")
        .render_derived()
    )
    statement = (
        select(
            Subscription.account_id,
            ApiProduct.code,
            Subscription.id,
            SubscriptionPhase.id,
            SubscriptionPhase.plan_version_id,
            SubscriptionPhase.starts_at,
            SubscriptionPhase.ends_at,
        )
        .join(asked, asked.c.account_id == Subscription.account_id)
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .join(
            SubscriptionPhase,
            and_(
                SubscriptionPhase.subscription_id == Subscription.id,
                SubscriptionPhase.starts_at < asked.c.ends_at,
                or_(SubscriptionPhase.ends_at.is_(None), SubscriptionPhase.ends_at > asked.c.starts_at),
            ),
        )
        .distinct()
        .order_by(Subscription.account_id, ApiProduct.code, SubscriptionPhase.starts_at, SubscriptionPhase.id)
    )
    return [PhaseSpan(*row) for row in await session.execute(statement)]


def phase_at(subscription: Subscription, moment: datetime) -> SubscriptionPhase | None:
    """Return the phase (loaded) that holds the moment, or None before the first and after the last."""
    for phase in subscription.phases:
        if phase.starts_at <= moment and (phase.ends_at is None or moment < phase.ends_at):
            return phase
    return None


def current_and_next_period(subscription: Subscription, now: datetime) -> tuple[BillingPeriod, ...]:
    """Return the billing period that holds `now` and the one after it, unless the subscription ends before that.

    A period keeps its full length when the subscription begins or ends inside it.
    """
    current = period_at(subscription, now)
    if subscription.ends_at is not None and subscription.ends_at <= current.end:
        return (current,)
    return current, period_at(subscription, current.end)


def period_at(subscription: Subscription, moment: datetime) -> BillingPeriod:
    """Return the whole billing period that holds a moment, also before the subscription began or after its end."""
    return period_containing(moment, subscription.anchor_at, subscription.interval, subscription.time_zone)


def period_end(subscription: Subscription, now: datetime) -> datetime:
    """Return when the billing period that holds `now` ends; of a trial, the trial's end."""
    if subscription.status == Status.TRIALING and subscription.trial_ends_at is not None:
        return subscription.trial_ends_at
    return period_at(subscription, now).end


_PHASES = selectinload(Subscription.phases)
_ADD_ONS = selectinload(Subscription.add_ons)
