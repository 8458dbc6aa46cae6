"""Moving a subscription to another plan: at once where the customer gets more, at period end where less. Nothing
here commits.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.currencies import prices_in
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ConflictError
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.offers import offered_version, require_change
from control_plane.subscriptions.phases import ahead, rewrite
from control_plane.subscriptions.queries import period_end
from control_plane.subscriptions.records import facts, note_change, own_subscription
from control_plane.subscriptions.segments import with_version, without_version
from control_plane.subscriptions.tables import Subscription

UNLIMITED = float("inf")


class SubscriptionEndingError(ConflictError):
    """The subscription was cancelled to the moment at which the change would begin."""

    def __init__(self, ends_at: datetime) -> None:
        super().__init__(
            "subscription_ending",
            f"The subscription ends on {ends_at:%Y-%m-%d}, before the change would begin: take the cancellation "
            "back first, or change now.",
        )


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A change of plan that was made (`now`) or planned (`period_end`), and when it begins."""

    subscription: Subscription
    at: Literal["now", "period_end"]
    effective_at: datetime


async def change(
    session: AsyncSession,
    *,
    subscription_id: str,
    plan_code: str,
    at: Literal["auto", "now", "period_end"] = "auto",
    allow_unlisted: bool = False,
    actor: str,
    now: datetime,
) -> PlanChange:
    """Move a subscription to the version of a plan that is on sale.

    `auto`: now where the plan costs more before any use, or the same with a larger quota, or where the
    subscription is in its trial; else when the billing period ends, and the quota stays until then. Replaces a
    change planned before; moving to the version that is in force only takes that back.

    Raises:
        NotFoundError, SubscriptionOverError, SubscriptionEndingError, PlanIsAddOnError, PlanNotOnSaleError,
        PlanUnlistedError, CurrencyDiffersError, ProductDiffersError, IntervalDiffersError,
        BillingDiffersError.
    """
    now = floor_ms(now)
    account, subscription = await own_subscription(session, subscription_id, now)
    version = await offered_version(session, plan_code, account=account, allow_unlisted=allow_unlisted)
    require_change(subscription, version)
    running_id = ahead(subscription, now)[0].plan_version_id
    if at == "auto":
        running = (await plan_versions(session, [running_id]))[running_id]
        begins_now = subscription.status == Status.TRIALING or running_id == version.id
        at = "now" if begins_now or gives_more(version, than=running, currency=account.currency) else "period_end"
    effective_at = now if at == "now" else period_end(subscription, now)
    if subscription.ends_at is not None and effective_at >= subscription.ends_at:
        raise SubscriptionEndingError(subscription.ends_at)
    await move(session, subscription, version, effective_at=effective_at, actor=actor, now=now)
    return PlanChange(subscription, at, effective_at)


async def discard_change(
    session: AsyncSession, *, subscription_id: str, actor: str, now: datetime
) -> Subscription:
    """Take back the changes of plan that are planned for later. Without one nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    _, subscription = await own_subscription(session, subscription_id, now)
    planned = ahead(subscription, now)
    staying = with_version(planned, planned[0].plan_version_id)
    if staying == planned:
        return subscription
    before = facts(subscription)
    await rewrite(session, subscription, staying, at=now, now=now)
    await note_change(
        session, subscription, action="subscription.change_discarded", before=before, actor=actor, now=now
    )
    return subscription


async def take_change_back(
    session: AsyncSession,
    subscription: Subscription,
    *,
    plan_version_id: str,
    begins: Collection[datetime],
    actor: str,
    now: datetime,
) -> bool:
    """Take back one change of a subscription, locked, to a version that was to begin at one of these moments.

    Other planned changes stay. Says whether there was such a change.
    """
    planned = ahead(subscription, now)
    staying = without_version(planned, plan_version_id, begins=begins)
    if staying == planned:
        return False
    before = facts(subscription)
    await rewrite(session, subscription, staying, at=now, now=now)
    await note_change(
        session, subscription, action="subscription.change_discarded", before=before, actor=actor, now=now
    )
    return True


async def move(
    session: AsyncSession,
    subscription: Subscription,
    version: PlanVersion,
    *,
    effective_at: datetime,
    actor: str,
    now: datetime,
) -> None:
    """Put a subscription, locked, on a version from a moment before its end on; trials and pauses go on."""
    before = facts(subscription)
    planned = with_version(ahead(subscription, effective_at), version.id)
    await rewrite(session, subscription, planned, at=effective_at, now=now)
    await note_change(
        session, subscription, action="subscription.plan_changed", before=before, actor=actor, now=now
    )


def gives_more(version: PlanVersion, *, than: PlanVersion, currency: str) -> bool:
    """Say whether a version costs more before any use than another, or the same with a larger quota.

    One sold by quote, whose price is agreed upon apart, counts as costing more than any that is not.
    """
    if version.by_quote != than.by_quote:
        return version.by_quote
    own, other = least_charge(version, currency), least_charge(than, currency)
    return own > other or (own == other and _quota(version) > _quota(than))


def least_charge(version: PlanVersion, currency: str) -> Decimal:
    """Return what a billing period costs at least, in the currency's major unit: flat prices and commitments.

    Raises:
        CurrencyDiffersError: the version has no prices in this currency.
    """
    flat = committed = Decimal(0)
    beside = Decimal(0)
    for price in prices_in(version, currency):
        if price.model == "flat":
            flat += Decimal(price.params["amount"])
        elif price.model == "commitment" and price.params.get("counts") == "all":
            committed = max(committed, Decimal(price.params["amount"]))
        elif price.model == "commitment":
            beside += Decimal(price.params["amount"])
    return max(flat + beside, committed)


def _quota(version: PlanVersion) -> float:
    return UNLIMITED if version.quota_units is None else version.quota_units
