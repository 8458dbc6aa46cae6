"""What counters are corrected from: subscriptions, keys with a quota share, and usage by hour."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import BigInteger, ColumnElement, Integer, and_, case, func, not_, select
from sqlalchemy import cast as cast_to
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import DEFAULT_BILLABLE_BELOW
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import Interval
from control_plane.gateway_sync.allowances import RanPhase, ran_phase
from control_plane.keys.tables import ApiKey
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.timeline import PhaseKind
from control_plane.subscriptions.trial_hours import is_before_billing
from control_plane.usage.tables import UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CounterSubscription:
    """A subscription that has counters; its periods follow from anchor, interval and time zone.

    `ran`: its phases but for pauses, where it has had more than one plan version.
    """

    id: str
    account_id: str
    anchor_at: datetime
    interval: Interval
    time_zone: str
    ran: tuple[RanPhase, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyShare:
    """A key with a quota of its own, and so with counters of its own."""

    key_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class HourUsage:
    """One key's calls of one hour under one plan version of a subscription. While the hour is open,
    `settled_revision` is 0.

    `billed_units` of test calls are those that would be billed if they were live: a test quota is given back for
    failed and replayed calls, too. Calls of a trial that ended in the hour have no units: billing began with it.
    """

    subscription_id: str
    hour: datetime
    mode: str
    key_id: str
    plan_version_id: str
    admitted_calls: int
    admitted_units: int
    billed_units: int
    settled_revision: int


async def subscriptions_during_hour(
    session: AsyncSession, account_ids: Collection[str], hour: datetime
) -> list[CounterSubscription]:
    """Return the accounts' subscriptions that ran at any moment of the hour, whatever became of them."""
    return await _subscriptions(
        session,
        is_any_of(Subscription.account_id, account_ids),
        Subscription.started_at < hour + HOUR,
        Subscription.ends_at.is_(None) | (Subscription.ends_at > hour),
    )


async def live_subscriptions(session: AsyncSession, account_ids: Collection[str]) -> list[CounterSubscription]:
    """Return the accounts' subscriptions that are not over; a paused one may go on with what it has used."""
    return await _subscriptions(
        session, is_any_of(Subscription.account_id, account_ids), Subscription.status.not_in(sorted(OVER))
    )


async def key_shares(session: AsyncSession, account_ids: Collection[str]) -> list[KeyShare]:
    """Return the accounts' keys that have a quota of their own, revoked ones too."""
    rows = await session.execute(
        select(ApiKey.id, ApiKey.account_id).where(
            is_any_of(ApiKey.account_id, account_ids), ApiKey.quota_units.is_not(None)
        )
    )
    return [KeyShare(key_id=key_id, account_id=account_id) for key_id, account_id in rows]


async def sealed_revisions(session: AsyncSession, account_ids: Collection[str], hour: datetime) -> dict[str, int]:
    """Return the revision at which the hour stands by account; those for which it is open are left out."""
    rows = await session.execute(
        select(UsageHour.account_id, UsageHour.revision)
        .where(
            is_any_of(UsageHour.account_id, account_ids), UsageHour.hour == hour, UsageHour.sealed_at.is_not(None)
        )
        .order_by(UsageHour.account_id)
    )
    return {row.account_id: row.revision for row in rows}


async def hour_usage(
    session: AsyncSession, account_ids: Collection[str], *, start: datetime, end: datetime
) -> list[HourUsage]:
    """Return usage of the hours in [start, end), by subscription, mode, key and plan version."""
    served = UsageHourly.outcome == Outcome.SERVED.value
    below = func.coalesce(PlanVersion.billable_statuses["below"].astext.cast(Integer), DEFAULT_BILLABLE_BELOW)
    billable = and_(served, UsageHourly.status < below, UsageHourly.replayed.is_(False))
    would_be_billed = case((billable, UsageHourly.units), else_=0)
    billed = case((UsageHourly.mode == Mode.LIVE.value, UsageHourly.billable_units), else_=would_be_billed)
    counts = not_(is_before_billing(UsageHourly.hour))
    statement = (
        select(
            SubscriptionPhase.subscription_id,
            UsageHourly.hour,
            UsageHourly.mode,
            UsageHourly.key_id,
            SubscriptionPhase.plan_version_id,
            _total(case((served, UsageHourly.calls), else_=0)),
            _total(case((and_(served, counts), UsageHourly.units), else_=0)),
            _total(case((counts, billed), else_=0)),
            func.coalesce(func.max(UsageHour.revision), 0),
        )
        .join(SubscriptionPhase, SubscriptionPhase.id == UsageHourly.phase_id)
        .join(Subscription, Subscription.id == SubscriptionPhase.subscription_id)
        .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
        .outerjoin(
            UsageHour,
            and_(
                UsageHour.account_id == UsageHourly.account_id,
                UsageHour.hour == UsageHourly.hour,
                UsageHour.sealed_at.is_not(None),
            ),
        )
        .where(is_any_of(UsageHourly.account_id, account_ids), UsageHourly.hour >= start, UsageHourly.hour < end)
        .group_by(
            SubscriptionPhase.subscription_id,
            UsageHourly.hour,
            UsageHourly.mode,
            UsageHourly.key_id,
            SubscriptionPhase.plan_version_id,
        )
    )
    return [HourUsage(*row) for row in await session.execute(statement)]


def _total(value: ColumnElement[int]) -> ColumnElement[int]:
    # PostgreSQL's sum of bigint is numeric
    return cast_to(func.sum(value), BigInteger)


async def _subscriptions(session: AsyncSession, *conditions: ColumnElement[bool]) -> list[CounterSubscription]:
    statement = select(
        Subscription.id,
        Subscription.account_id,
        Subscription.anchor_at,
        Subscription.interval,
        Subscription.time_zone,
    ).where(*conditions)
    rows = (await session.execute(statement)).all()
    ran = await _ran_under_several(session, [row.id for row in rows])
    return [
        CounterSubscription(
            id=sid,
            account_id=account_id,
            anchor_at=anchor_at,
            interval=cast("Interval", interval),
            time_zone=zone,
            ran=tuple(ran.get(sid, ())),
        )
        for sid, account_id, anchor_at, interval, zone in rows
    ]


async def _ran_under_several(
    session: AsyncSession, subscription_ids: Collection[str]
) -> dict[str, list[RanPhase]]:
    """Return the phases, but for pauses, of those that have had more than one plan version: few have."""
    found: dict[str, list[RanPhase]] = defaultdict(list)
    if not subscription_ids:
        return found
    several = (
        select(SubscriptionPhase.subscription_id)
        .where(is_any_of(SubscriptionPhase.subscription_id, subscription_ids))
        .group_by(SubscriptionPhase.subscription_id)
        .having(func.min(SubscriptionPhase.plan_version_id) != func.max(SubscriptionPhase.plan_version_id))
    )
    statement = (
        select(
            SubscriptionPhase.subscription_id,
            SubscriptionPhase.plan_version_id,
            SubscriptionPhase.kind,
            SubscriptionPhase.starts_at,
            SubscriptionPhase.ends_at,
            Subscription.anchor_at,
        )
        .join(Subscription, Subscription.id == SubscriptionPhase.subscription_id)
        .where(SubscriptionPhase.subscription_id.in_(several), SubscriptionPhase.kind != PhaseKind.PAUSED.value)
        .order_by(SubscriptionPhase.subscription_id, SubscriptionPhase.starts_at)
    )
    for subscription_id, version_id, kind, starts_at, ends_at, anchor_at in await session.execute(statement):
        phase = ran_phase(version_id, PhaseKind(kind), starts_at, ends_at, anchor_at=anchor_at)
        found[subscription_id].append(phase)
    return found
