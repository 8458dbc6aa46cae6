"""Telling of trials that end soon."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Interval, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.catalog.tables import Price
from control_plane.dunning.model import DunningConfig
from control_plane.dunning.plans import plan_names
from control_plane.foundation.db import is_any_of
from control_plane.foundation.money import round_minor
from control_plane.notifications.model import MailKind
from control_plane.notifications.queue import queue_mail
from control_plane.notifications.tables import Mail
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase

SHORT = timedelta(hours=12)


def trial_cause(subscription_id: str, trial_ends_at: datetime) -> str:
    """Return what names the mail: a trial that is made longer is told of again."""
    return f"trial_ending:{subscription_id}:{trial_ends_at.isoformat()}"


async def tell_of_trials(session: AsyncSession, *, config: DunningConfig, now: datetime, limit: int = 500) -> int:
    """Queue a mail for each trial that ends within the notice and was not told of; returns how many.

    A trial that is hardly longer than the notice itself needs none.
    """
    short = literal(config.trial_notice + SHORT, Interval())
    statement = (
        select(Subscription)
        .where(
            Subscription.status == Status.TRIALING.value,
            Subscription.trial_ends_at > now,
            Subscription.trial_ends_at <= now + config.trial_notice,
            Subscription.trial_ends_at > Subscription.started_at + short,
        )
        .order_by(Subscription.trial_ends_at, Subscription.id)
    )
    ending = {
        trial_cause(found.id, found.trial_ends_at): found
        for found in await session.scalars(statement)
        if found.trial_ends_at is not None
    }
    told = set(await session.scalars(select(Mail.cause).where(is_any_of(Mail.cause, ending))))
    causes = [cause for cause in ending if cause not in told][:limit]
    for cause in causes:
        await _tell(session, ending[cause], cause=cause, now=now)
    return len(causes)


async def _tell(session: AsyncSession, subscription: Subscription, *, cause: str, now: datetime) -> None:
    trial_ends_at = subscription.trial_ends_at or now
    names = await plan_names(session, subscription.id)
    goes_on = subscription.ends_at is None or subscription.ends_at > trial_ends_at
    values: dict[str, Any] = {
        "product": names.product,
        "plan": names.plan,
        "ends_at": trial_ends_at.isoformat(),
        "goes_on": goes_on,
        "price": await _price(session, subscription, trial_ends_at) if goes_on else None,
        "interval": subscription.interval,
    }
    await queue_mail(
        session,
        kind=MailKind.TRIAL_ENDING,
        cause=cause,
        account_id=subscription.account_id,
        values=values,
        now=now,
    )


async def _price(session: AsyncSession, subscription: Subscription, at: datetime) -> dict[str, Any] | None:
    """Return what the plan that follows the trial costs a billing period, usage apart; None: nothing fixed."""
    statement = (
        select(Price.params, Price.currency)
        .join(SubscriptionPhase, SubscriptionPhase.plan_version_id == Price.plan_version_id)
        .join(Account, Account.currency == Price.currency)
        .where(
            Account.id == subscription.account_id,
            SubscriptionPhase.subscription_id == subscription.id,
            SubscriptionPhase.starts_at <= at,
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > at),
            Price.model == "flat",
        )
    )
    rows = (await session.execute(statement)).all()
    if not rows:
        return None
    currency = rows[0][1]
    amount = sum(round_minor(Decimal(params["amount"]), currency) for params, _ in rows)
    return {"amount_minor": amount, "currency": currency}
