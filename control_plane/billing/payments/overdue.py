"""Invoices that are overdue, and the subscriptions that are past due for them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Select, exists, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.payments import metrics
from control_plane.billing.payments.model import PAYABLE
from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.statuses import change_status
from control_plane.subscriptions.tables import Subscription

log = structlog.get_logger(__name__)

ACTOR = "system"
# only a subscription that is paid for can fall behind; a paused one waits until it is resumed
_MAY_FALL_BEHIND = frozenset({Status.ACTIVE})


@dataclass(frozen=True, slots=True)
class OverdueConfig:
    """A subscription is past due when an invoice of it is still unpaid `grace` after its due date."""

    grace: timedelta = timedelta(days=7)
    pause_seconds: float = 60.0
    subscriptions_per_pass: int = 200


async def fall_behind(
    session: AsyncSession, *, subscription_id: str, account_id: str, config: OverdueConfig, now: datetime
) -> bool:
    """Make a subscription past due if an open invoice of it is unpaid beyond the grace; says whether it did."""
    await session.execute(select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
    # under the account's lock: a payment that came in between counts
    if not await session.scalar(
        select(exists(_overdue(config, now).where(Subscription.id == subscription_id).subquery()))
    ):
        return False
    await change_status(session, subscription_id=subscription_id, status="past_due", actor=ACTOR, now=now)
    return True


async def catch_up(session: AsyncSession, *, subscription_id: str, actor: str, now: datetime) -> bool:
    """Make a past due subscription active again if none of its invoices is unpaid beyond its due date.

    Invoices that were given up as uncollectible still count as unpaid. Says whether it was done. The caller holds
    the account's lock.
    """
    status = await session.scalar(select(Subscription.status).where(Subscription.id == subscription_id))
    if status != Status.PAST_DUE:
        return False
    unpaid = select(Invoice.id).where(
        Invoice.subscription_id == subscription_id, Invoice.status.in_(sorted(PAYABLE)), Invoice.due_at <= now
    )
    if await session.scalar(select(unpaid.exists())):
        return False
    await change_status(session, subscription_id=subscription_id, status="active", actor=actor, now=now)
    return True


async def behind(session: AsyncSession, *, config: OverdueConfig, now: datetime) -> Sequence[tuple[str, str]]:
    """Return the ids of subscriptions that are to become past due, each with its account's id."""
    statement = _overdue(config, now).distinct().order_by(Subscription.account_id, Subscription.id)
    found = await session.execute(statement.limit(config.subscriptions_per_pass))
    return [(subscription_id, account_id) for subscription_id, account_id in found]


async def run_overdue(
    *,
    config: OverdueConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Make subscriptions with overdue invoices past due until `stop`. Failures are counted and tried again."""

    async def one_round() -> float:
        done = await _pass(config, sessions, clock())
        return config.pause_seconds if done < config.subscriptions_per_pass else 0

    await repeat("overdue", one_round, stop=stop, failures=metrics.FAILURES.labels("overdue"))


async def _pass(config: OverdueConfig, sessions: async_sessionmaker[AsyncSession], now: datetime) -> int:
    async with sessions() as session:
        found = await behind(session, config=config, now=now)
    done = 0
    for subscription_id, account_id in found:
        # one by one: whoever cannot be changed does not keep the others from it
        try:
            async with sessions() as session, session.begin():
                done += await fall_behind(
                    session, subscription_id=subscription_id, account_id=account_id, config=config, now=now
                )
        except Exception as error:  # noqa: BLE001 - the others' turn comes all the same
            metrics.FAILURES.labels("fall_behind").inc()
            log.warning("a subscription cannot be past due", subscription=subscription_id, error=repr(error))
    metrics.PAST_DUE.inc(done)
    return done


def _overdue(config: OverdueConfig, now: datetime) -> Select[str, str]:
    return (
        select(Subscription.id, Subscription.account_id)
        .join(Invoice, Invoice.subscription_id == Subscription.id)
        .where(
            Invoice.status == "open",
            Invoice.due_at <= now - config.grace,
            Subscription.status.in_(sorted(_MAY_FALL_BEHIND)),
        )
    )
