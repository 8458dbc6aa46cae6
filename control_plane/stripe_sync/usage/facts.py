"""What decisions about rows of usage go by, read for many subscriptions at once."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Interval, and_, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.catalog.tables import StripeMeter, StripePrice, StripePush
from control_plane.stripe_sync.invoices.tables import (
    StripeInvoice,
    StripeInvoiceLine,
    StripeInvoiceTask,
    is_charged,
)
from control_plane.stripe_sync.subscriptions.tables import StripeSpan, StripeSubscription
from control_plane.stripe_sync.usage.model import Rating, RowKey
from control_plane.stripe_sync.usage.moments import AtStripe, PlanSpan, StripeTime
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn, SubscriptionPhase

# from here on the adjustments of a draft are decided: what Stripe would still add to it, nobody has reckoned with
DECIDED = ("adjusting", "releasing", "done", "late")
PUSHED = "pushed"
SLACK = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class UsageFacts:
    """Subscriptions as Stripe has them, and who rates which meter: by subscription, by plan version."""

    at_stripe: Mapping[str, AtStripe]
    _versions: Mapping[tuple[str, str], frozenset[str]]
    _native: Mapping[tuple[str, str], str]
    _pushed: frozenset[str]

    def rating(self, key: RowKey, *, subscription_id: str, plan_version_id: str) -> Rating:
        """Return who rates a row's meter: Stripe, where any price of its phase lies there as a metered one."""
        versions = {plan_version_id, *self._versions.get((subscription_id, key.phase_id), ())}
        names = {self._native[one, key.meter] for one in versions if (one, key.meter) in self._native}
        return Rating(event_name=min(names, default=None), pushed=versions <= self._pushed)


async def usage_facts(
    session: AsyncSession, subscription_ids: Collection[str], *, plan_version_ids: Collection[str]
) -> UsageFacts:
    """Read what decisions about rows of these subscriptions go by; `plan_version_ids` are those of the rows."""
    add_ons = await _add_ons(session, subscription_ids)
    versions = {*plan_version_ids, *(one for found in add_ons.values() for one in found)}
    native = await session.execute(
        select(StripePrice.plan_version_id, StripeMeter.meter, StripeMeter.event_name)
        .join(StripeMeter, StripeMeter.meter_id == StripePrice.meter_id)
        .where(is_any_of(StripePrice.plan_version_id, versions))
    )
    pushed = await session.scalars(
        select(StripePush.plan_version_id).where(
            is_any_of(StripePush.plan_version_id, versions), StripePush.state == PUSHED
        )
    )
    return UsageFacts(
        at_stripe=await at_stripe_of(session, subscription_ids),
        _versions={place: frozenset(found) for place, found in add_ons.items()},
        _native={(version_id, meter): name for version_id, meter, name in native},
        _pushed=frozenset(pushed),
    )


async def at_stripe_of(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, AtStripe]:
    """Return subscriptions as Stripe has them; those that Stripe does not have are left out."""
    rows = await session.execute(
        select(StripeSubscription, Subscription.anchor_at, Subscription.interval, Subscription.time_zone)
        .join(Subscription, Subscription.id == StripeSubscription.subscription_id)
        .where(is_any_of(StripeSubscription.subscription_id, subscription_ids))
    )
    spans, starts = await _spans(session, subscription_ids), await _phase_starts(session, subscription_ids)
    billed, drafts = await _invoiced(session, subscription_ids)
    return {
        row.subscription_id: AtStripe(
            customer_id=row.customer_id,
            started_at=row.started_at,
            ended_at=row.ended_at,
            billing_cycle_anchor=row.billing_cycle_anchor,
            current_period=StripeTime(start=row.current_period_start, end=row.current_period_end),
            anchor_at=anchor_at,
            interval=interval,
            time_zone=time_zone,
            spans=tuple(spans[row.subscription_id]),
            phase_starts=starts[row.subscription_id],
            billed=tuple(billed[row.subscription_id]),
            drafts=tuple(drafts[row.subscription_id]),
        )
        for row, anchor_at, interval, time_zone in rows
    }


async def _add_ons(session: AsyncSession, subscription_ids: Collection[str]) -> dict[tuple[str, str], set[str]]:
    """Return plan versions of add-ons by (subscription, phase) in which they ran."""
    rows = await session.execute(
        select(SubscriptionPhase.subscription_id, SubscriptionPhase.id, SubscriptionAddOn.plan_version_id)
        .join(
            SubscriptionAddOn,
            and_(
                SubscriptionAddOn.subscription_id == SubscriptionPhase.subscription_id,
                or_(SubscriptionPhase.ends_at.is_(None), SubscriptionAddOn.starts_at < SubscriptionPhase.ends_at),
                or_(SubscriptionAddOn.ends_at.is_(None), SubscriptionAddOn.ends_at > SubscriptionPhase.starts_at),
            ),
        )
        .where(is_any_of(SubscriptionPhase.subscription_id, subscription_ids))
    )
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for subscription_id, phase_id, version_id in rows:
        found[subscription_id, phase_id].add(version_id)
    return found


async def _spans(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, list[PlanSpan]]:
    rows = await session.execute(
        select(StripeSpan.subscription_id, StripeSpan.starts_at, StripeSpan.ours_from)
        .where(is_any_of(StripeSpan.subscription_id, subscription_ids))
        .order_by(StripeSpan.subscription_id, StripeSpan.starts_at)
    )
    found: dict[str, list[PlanSpan]] = defaultdict(list)
    for subscription_id, starts_at, ours_from in rows:
        found[subscription_id].append(PlanSpan(starts_at=starts_at, ours_from=ours_from))
    return found


async def _phase_starts(
    session: AsyncSession, subscription_ids: Collection[str]
) -> dict[str, dict[str, datetime]]:
    rows = await session.execute(
        select(SubscriptionPhase.subscription_id, SubscriptionPhase.id, SubscriptionPhase.starts_at).where(
            is_any_of(SubscriptionPhase.subscription_id, subscription_ids)
        )
    )
    found: dict[str, dict[str, datetime]] = defaultdict(dict)
    for subscription_id, phase_id, starts_at in rows:
        found[subscription_id][phase_id] = starts_at
    return found


async def _invoiced(
    session: AsyncSession, subscription_ids: Collection[str]
) -> tuple[dict[str, list[StripeTime]], dict[str, list[StripeTime]]]:
    """Return what final invoices have billed of metered prices, and what open drafts cover."""
    billed: dict[str, list[StripeTime]] = defaultdict(list)
    drafts: dict[str, list[StripeTime]] = defaultdict(list)
    lines = await session.execute(
        select(
            StripeInvoice.subscription_id,
            StripeInvoiceLine.period_start,
            StripeInvoiceLine.period_end,
            StripeInvoice.finalised_at.is_not(None),
        )
        .join(StripeInvoiceLine, StripeInvoiceLine.invoice_id == StripeInvoice.id)
        .where(
            is_any_of(StripeInvoice.subscription_id, subscription_ids),
            StripeInvoiceLine.kind == "metered",
            # a line for time that is still to come bills none of it
            StripeInvoiceLine.period_end <= StripeInvoice.created_at + literal(SLACK, Interval()),
            or_(and_(StripeInvoice.finalised_at.is_not(None), is_charged()), StripeInvoice.status == "draft"),
        )
        .distinct()
    )
    for subscription_id, start, end, is_final in lines:
        if subscription_id is not None:
            (billed if is_final else drafts)[subscription_id].append(StripeTime(start=start, end=end))
    tasks = await session.execute(
        select(
            StripeInvoiceTask.subscription_id,
            StripeInvoiceTask.period_start,
            StripeInvoiceTask.period_end,
            StripeInvoiceTask.state.in_(DECIDED),
        ).where(is_any_of(StripeInvoiceTask.subscription_id, subscription_ids), StripeInvoiceTask.state != "gone")
    )
    for subscription_id, start, end, is_decided in tasks:
        (billed if is_decided else drafts)[subscription_id].append(StripeTime(start=start, end=end))
    return billed, drafts
