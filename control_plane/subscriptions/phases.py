"""Writing down what is to come of a subscription as phases, in the order that the database asks for."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.ids import new_id
from control_plane.subscriptions.segments import Segment, from_moment, normalised, until
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.timeline import PhaseKind


def open_phase(segment: Segment, *, now: datetime) -> SubscriptionPhase:
    """Return a new phase; one that begins later is left for `advance` to tell the gateway of."""
    return SubscriptionPhase(
        id=new_id("ph", now),
        plan_version_id=segment.plan_version_id,
        kind=segment.kind.value,
        starts_at=segment.starts_at,
        ends_at=segment.ends_at,
        applied_at=now if segment.starts_at <= now else None,
    )


def ahead(subscription: Subscription, at: datetime) -> list[Segment]:
    """Return what is planned from a moment on (phases loaded)."""
    return from_moment([_segment(phase) for phase in subscription.phases], at)


async def rewrite(
    session: AsyncSession, subscription: Subscription, segments: Sequence[Segment], *, at: datetime, now: datetime
) -> None:
    """Have the segments, which begin at `at`, take the place of all that was planned from then on.

    The last of them is given the subscription's end. Phases are cut where add-ons begin or end, and neighbours of
    the same version and kind are one phase otherwise; phases that stay as they were keep their ids. Flushes, since
    a phase may only be opened when no other is open.
    """
    wanted = until(segments, subscription.ends_at)
    cuts = {at for add_on in subscription.add_ons for at in (add_on.starts_at, add_on.ends_at) if at is not None}
    before = [phase for phase in subscription.phases if phase.starts_at < at]
    if before and at not in cuts and wanted and _segment(before[-1]).goes_on_in(wanted[0]):
        # what ran before goes on: it and its continuation are one
        wanted[0] = Segment(wanted[0].plan_version_id, wanted[0].kind, before[-1].starts_at, wanted[0].ends_at)
    elif before:
        before[-1].ends_at = at
    made = {_place(one): one for one in normalised(wanted, cuts)}
    kept = {}
    for phase in list(subscription.phases):
        if _place(_segment(phase)) in made:
            kept[_place(_segment(phase))] = phase
        elif phase.starts_at >= at:
            subscription.phases.remove(phase)
            await session.delete(phase)
    for place, phase in kept.items():
        phase.ends_at = made[place].ends_at or phase.ends_at
    await session.flush()
    for place, segment in made.items():
        if place in kept:
            kept[place].ends_at = segment.ends_at
        else:
            subscription.phases.append(open_phase(segment, now=now))
    subscription.phases.sort(key=lambda phase: phase.starts_at)
    await session.flush()


def _segment(phase: SubscriptionPhase) -> Segment:
    return Segment(phase.plan_version_id, PhaseKind(phase.kind), phase.starts_at, phase.ends_at)


def _place(segment: Segment) -> tuple[datetime, str, PhaseKind]:
    return segment.starts_at, segment.plan_version_id, segment.kind
