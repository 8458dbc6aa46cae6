"""Bringing a subscription of ours to where Stripe has it: plan, add-ons, trial, status, end. Nothing here commits.

Only this changes a subscription that Stripe bills. Whatever the reason for a change at Stripe, an order of ours, a
customer in the portal, somebody in Stripe's own pages, it ends here.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.subscriptions.beginning import SubscribedTwiceError
from control_plane.stripe_sync.subscriptions.model import STATUS_HERE, SubscriptionState, Wanted, hour_here
from control_plane.subscriptions.holds import forget_hold
from control_plane.subscriptions.model import OVER, Status, check_transition
from control_plane.subscriptions.phases import ahead, rewrite
from control_plane.subscriptions.queries import phase_at
from control_plane.subscriptions.records import begin_phases, end_in_time, facts, note_change
from control_plane.subscriptions.segments import Segment, from_moment, until, with_kind, with_version
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn
from control_plane.subscriptions.timeline import PhaseKind
from control_plane.subscriptions.trials import convert

ACTOR = "stripe"


async def follow(
    session: AsyncSession,
    subscription: Subscription,
    state: SubscriptionState,
    wanted: Wanted | None,
    *,
    now: datetime,
) -> bool:
    """Bring a subscription, locked with its account, to what Stripe has; says whether anything changed.

    `wanted` None: what it has stays as it is, since Stripe has items that are no plan of ours; status and end are
    followed all the same. One that is over stays over, unless Stripe goes on with it, and is paid: an end that was
    taken back there may be seen here after ours, which lies at a full hour and comes without being told.

    Raises:
        SubscribedTwiceError: Stripe goes on with it, and the account has another one in its place.
    """
    before = facts(subscription)
    if subscription.status in OVER:
        if not _goes_on(state, now):
            return False
        await _revive(session, subscription, state, now=now)
    begun = begin_phases(session, subscription, now)
    if state.is_over:
        _end(subscription, now)
        await forget_hold(session, subscription.id)
        await rewrite(session, subscription, [], at=subscription.ends_at or now, now=now)
    else:
        await _follow_trial(session, subscription, state, now=now)
        subscription.anchor_at = hour_here(state.billing_cycle_anchor)
        if wanted is not None:
            await follow_holding(session, subscription, wanted, now=now)
        await _follow_status(session, subscription, state, now=now)
        end_in_time(session, subscription, now)
    if facts(subscription) == before and not begun:
        return False
    await session.flush()
    await note_change(
        session, subscription, action="subscription.followed_stripe", before=before, actor=ACTOR, now=now
    )
    await bump_gateway_versions(session, [subscription.account_id], now)
    return True


def _goes_on(state: SubscriptionState, now: datetime) -> bool:
    return state.is_live and (state.ends_at is None or hour_here(state.ends_at) > now)


async def _revive(
    session: AsyncSession, subscription: Subscription, state: SubscriptionState, *, now: datetime
) -> None:
    """Have a subscription that was over here go on, as if it had not ended."""
    other = await session.scalar(
        select(Subscription.id).where(
            Subscription.account_id == subscription.account_id,
            Subscription.api_product_id == subscription.api_product_id,
            Subscription.status.not_in(sorted(OVER)),
        )
    )
    if other is not None:
        raise SubscribedTwiceError(state.stripe_id, other)
    version_id = subscription.phases[-1].plan_version_id
    segments = [Segment(version_id, PhaseKind.PAID, now, None)]
    subscription.status, subscription.ends_at, subscription.canceled_at = Status.ACTIVE.value, None, None
    if state.status == "trialing" and state.trial_end is not None and state.trial_end > now:
        subscription.status, subscription.trial_ends_at = Status.TRIALING.value, state.trial_end
        trial = Segment(version_id, PhaseKind.TRIAL, now, state.trial_end)
        segments = [trial, Segment(version_id, PhaseKind.PAID, state.trial_end, None)]
    await rewrite(session, subscription, segments, at=now, now=now)


def _end(subscription: Subscription, now: datetime) -> None:
    """End it now, or as it was to end if that has come."""
    planned = subscription.ends_at
    if planned is not None and planned <= now:
        subscription.status = check_transition(subscription.status, Status.ENDED).value
        return
    subscription.status = check_transition(subscription.status, Status.CANCELED).value
    subscription.canceled_at = now
    subscription.ends_at = max(now, subscription.started_at)


async def _follow_trial(
    session: AsyncSession, subscription: Subscription, state: SubscriptionState, *, now: datetime
) -> None:
    if subscription.status != Status.TRIALING:
        return
    if state.status != "trialing":
        await convert(session, subscription, actor=ACTOR, now=now)
        return
    ends_at = state.trial_end
    if ends_at is None or ends_at == subscription.trial_ends_at or ends_at <= now:
        return
    planned = ahead(subscription, now)
    version = planned[-1].plan_version_id
    paid = [replace(one, starts_at=ends_at) for one in planned if one.kind is PhaseKind.PAID][:1]
    if subscription.ends_at is not None and subscription.ends_at == subscription.trial_ends_at:
        subscription.ends_at = ends_at
    subscription.trial_ends_at = ends_at
    trial = Segment(planned[0].plan_version_id, PhaseKind.TRIAL, planned[0].starts_at, ends_at)
    after = paid or [Segment(version, PhaseKind.PAID, ends_at, None)]
    await rewrite(session, subscription, [trial, *after], at=planned[0].starts_at, now=now)


async def _follow_status(
    session: AsyncSession, subscription: Subscription, state: SubscriptionState, *, now: datetime
) -> None:
    target, present = STATUS_HERE[state.status], Status(subscription.status)
    if target is present or Status.TRIALING in {target, present}:
        return
    if present is Status.PAST_DUE:
        await forget_hold(session, subscription.id)
    step = Status.ACTIVE if present is Status.PAUSED else target
    subscription.status = check_transition(present, step).value
    if Status.PAUSED in {target, present}:
        kind = PhaseKind.PAUSED if target is Status.PAUSED else PhaseKind.PAID
        await rewrite(session, subscription, with_kind(ahead(subscription, now), kind), at=now, now=now)
    if present is Status.PAUSED and target is Status.PAST_DUE:
        subscription.status = check_transition(Status.ACTIVE, Status.PAST_DUE).value


async def follow_holding(
    session: AsyncSession, subscription: Subscription, wanted: Wanted, *, now: datetime
) -> None:
    """Give a subscription, locked, the plan and add-ons that are wanted, from now on; no more than that."""
    ends_at = wanted.ends_at if wanted.ends_at is None else max(wanted.ends_at, now)
    if phase_at(subscription, now) is None:
        return  # its end has come, and is noted by now or in a moment
    planned = ahead(subscription, now)
    segments = until(_versions(_open_ended(planned, subscription), wanted), ends_at)
    changed = _follow_add_ons(subscription, wanted, now=now)
    rows_go = [row for row in subscription.add_ons if row not in changed.kept]
    for row in rows_go:
        subscription.add_ons.remove(row)
        await session.delete(row)
    if not (changed.any or rows_go) and segments == _joined(planned) and ends_at == subscription.ends_at:
        return
    if ends_at != subscription.ends_at:
        subscription.canceled_at = None if ends_at is None else now
        subscription.ends_at = ends_at
    await rewrite(session, subscription, segments, at=now, now=now)


def _open_ended(planned: list[Segment], subscription: Subscription) -> list[Segment]:
    """Return what would be to come if it never ended."""
    *rest, last = planned
    if last.kind is PhaseKind.TRIAL and subscription.trial_ends_at is not None:
        after = Segment(last.plan_version_id, PhaseKind.PAID, subscription.trial_ends_at, None)
        return [*rest, replace(last, ends_at=subscription.trial_ends_at), after]
    return [*rest, replace(last, ends_at=None)]


def _versions(segments: list[Segment], wanted: Wanted) -> list[Segment]:
    if wanted.later is None:
        return _joined(with_version(segments, wanted.now.plan_version_id))
    at, later = wanted.later
    now_part = with_version(until(segments, at), wanted.now.plan_version_id)
    return _joined([*now_part, *with_version(from_moment(segments, at), later.plan_version_id)])


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for one in segments:
        if joined and joined[-1].goes_on_in(one) and joined[-1].ends_at == one.starts_at:
            joined[-1] = replace(joined[-1], ends_at=one.ends_at)
        else:
            joined.append(one)
    return joined


class _AddOns:
    """Which rows of add-ons stay, and whether one of them was changed or is new."""

    def __init__(self) -> None:
        self.kept: list[SubscriptionAddOn] = []
        self.any = False


def _follow_add_ons(subscription: Subscription, wanted: Wanted, *, now: datetime) -> _AddOns:
    later_at, later = wanted.later if wanted.later is not None else (None, wanted.now)
    result = _AddOns()
    rows = list(subscription.add_ons)
    for row in rows:
        if row.ends_at is not None and row.ends_at <= now:
            result.kept.append(row)
    present = [row for row in rows if row not in result.kept and row.starts_at <= now]
    coming = [row for row in rows if row.starts_at > now]
    for version_id in sorted(wanted.now.quantities.keys() | later.quantities.keys() | _versions_of(present)):
        count_now = wanted.now.quantities.get(version_id, 0)
        count_later = later.quantities.get(version_id, 0)
        ends_at = None if count_later == count_now else later_at
        held = next((row for row in present if row.plan_version_id == version_id), None)
        if held is not None and held.quantity == count_now:
            _keep(result, held, ends_at)
        elif held is not None and held.starts_at < now:
            _keep(result, held, now)
            held = None
        if count_now and (held is None or held not in result.kept):
            _make(result, subscription, version_id, count_now, starts_at=now, ends_at=ends_at, now=now)
        if count_later and count_later != count_now and later_at is not None:
            same = (row for row in coming if (row.plan_version_id, row.quantity) == (version_id, count_later))
            planned = next((row for row in same if row.starts_at == later_at), None)
            if planned is not None:
                _keep(result, planned, None)
            else:
                _make(result, subscription, version_id, count_later, starts_at=later_at, ends_at=None, now=now)
    return result


def _versions_of(rows: Iterable[SubscriptionAddOn]) -> set[str]:
    return {row.plan_version_id for row in rows}


def _keep(result: _AddOns, row: SubscriptionAddOn, ends_at: datetime | None) -> None:
    result.any |= row.ends_at != ends_at
    row.ends_at = ends_at
    result.kept.append(row)


def _make(
    result: _AddOns,
    subscription: Subscription,
    version_id: str,
    quantity: int,
    *,
    starts_at: datetime,
    ends_at: datetime | None,
    now: datetime,
) -> None:
    row = SubscriptionAddOn(
        id=new_id("sao", now),
        plan_version_id=version_id,
        quantity=quantity,
        starts_at=starts_at,
        ends_at=ends_at,
        created_at=now,
    )
    subscription.add_ons.append(row)
    result.kept.append(row)
    result.any = True
