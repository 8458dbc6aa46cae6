"""Reading what ran when under many subscriptions at once."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import NotFoundError
from control_plane.subscriptions.earlier_quotas import earlier_quotas
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn, SubscriptionPhase
from control_plane.subscriptions.timeline import (
    AddOnInForce,
    PhaseKind,
    Timeline,
    TimelinePhase,
    charged_from,
)

# columns, not mapped objects: closing reads these of a hundred thousand subscriptions
_SUBSCRIPTION = (
    Subscription.id,
    Subscription.account_id,
    Subscription.api_product_id,
    Subscription.status,
    Subscription.anchor_at,
    Subscription.interval,
    Subscription.time_zone,
    Subscription.started_at,
    Subscription.ends_at,
    Subscription.trial_ends_at,
    Subscription.unused_time,
    Subscription.billed_by,
    Subscription.overrides,
)
_PHASE = (
    SubscriptionPhase.subscription_id,
    SubscriptionPhase.id,
    SubscriptionPhase.plan_version_id,
    SubscriptionPhase.kind,
    SubscriptionPhase.starts_at,
    SubscriptionPhase.ends_at,
)
_ADD_ON = (
    SubscriptionAddOn.subscription_id,
    SubscriptionAddOn.id,
    SubscriptionAddOn.plan_version_id,
    SubscriptionAddOn.quantity,
    SubscriptionAddOn.starts_at,
    SubscriptionAddOn.ends_at,
)


async def timeline(session: AsyncSession, subscription_id: str) -> Timeline:
    """Return the timeline of one subscription, over or not.

    Raises:
        NotFoundError: there is none.
    """
    found = await timelines(session, [subscription_id])
    if not found:
        raise NotFoundError("subscription", subscription_id)
    return found[subscription_id]


async def timelines(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, Timeline]:
    """Return timelines by subscription, in three queries; ids that do not exist are left out."""
    if not subscription_ids:
        return {}
    subscriptions = (
        await session.execute(select(*_SUBSCRIPTION).where(is_any_of(Subscription.id, subscription_ids)))
    ).all()
    phases: dict[str, list[Any]] = defaultdict(list)
    of_phases = (
        select(*_PHASE)
        .where(is_any_of(SubscriptionPhase.subscription_id, subscription_ids))
        .order_by(SubscriptionPhase.starts_at)
    )
    for phase in await session.execute(of_phases):
        phases[phase.subscription_id].append(phase)
    add_ons: dict[str, list[Any]] = defaultdict(list)
    of_add_ons = (
        select(*_ADD_ON)
        .where(is_any_of(SubscriptionAddOn.subscription_id, subscription_ids))
        .order_by(SubscriptionAddOn.created_at, SubscriptionAddOn.id)
    )
    for add_on in await session.execute(of_add_ons):
        add_ons[add_on.subscription_id].append(add_on)
    return {row.id: _timeline(row, phases[row.id], add_ons.get(row.id, [])) for row in subscriptions}


def _timeline(row: Row[Any], phases: Sequence[Row[Any]], add_ons: Sequence[Row[Any]]) -> Timeline:
    made: list[TimelinePhase] = []
    first_paid = True
    for phase in phases:
        begins = phase.starts_at
        if phase.kind == PhaseKind.PAID:
            begins = charged_from(begins, anchor_at=row.anchor_at, first_paid=first_paid)
            first_paid = False
        made.append(
            TimelinePhase(
                id=phase.id,
                plan_version_id=phase.plan_version_id,
                kind=PhaseKind(phase.kind),
                starts_at=phase.starts_at,
                ends_at=phase.ends_at,
                charged_from=begins,
                add_ons=tuple(
                    AddOnInForce(add_on.id, add_on.plan_version_id, add_on.quantity)
                    for add_on in add_ons
                    # phases are cut where add-ons change: one that is in force at the start is so to the end
                    if add_on.starts_at <= phase.starts_at
                    and (add_on.ends_at is None or add_on.ends_at > phase.starts_at)
                ),
            )
        )
    return Timeline(
        subscription_id=row.id,
        account_id=row.account_id,
        api_product_id=row.api_product_id,
        status=row.status,
        anchor_at=row.anchor_at,
        interval=row.interval,
        time_zone=row.time_zone,
        started_at=row.started_at,
        ends_at=row.ends_at,
        trial_ends_at=row.trial_ends_at,
        unused_time=row.unused_time,
        billed_by=row.billed_by,
        quota_override=row.overrides.get("quota_units"),
        quota_cap_override=row.overrides.get("quota_cap_units"),
        earlier_quotas=earlier_quotas(row.overrides),
        phases=tuple(made),
    )
