"""What a timeline adds to a subscription's snapshot: how units count, add-ons, and what is known to come. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from control_plane.foundation.period import BillingPeriod
from control_plane.gateway_sync.allowances import AddOnTerms, brought_units, counting_in
from control_plane.gateway_sync.records import AddedTerms, PlanTerms, SubscriptionSnapshot
from control_plane.subscriptions.timeline import PhaseKind, Timeline, TimelinePhase

Plans: TypeAlias = Mapping[str, PlanTerms]
Then: TypeAlias = tuple[datetime, SubscriptionSnapshot | None] | None


def versions_needed(timeline: Timeline, now: datetime) -> set[str]:
    """Return the plan versions whose terms `with_timeline` needs, those of add-ons among them."""
    horizon = _horizon(timeline, now)
    phases = [
        phase
        for phase in timeline.phases
        if phase.starts_at < horizon and (phase.ends_at is None or phase.ends_at > now)
    ]
    add_ons = {add_on.plan_version_id for phase in phases for add_on in phase.add_ons}
    return {phase.plan_version_id for phase in phases} | add_ons


def with_timeline(
    snapshot: SubscriptionSnapshot,
    timeline: Timeline,
    phase_id: str,
    plans: Plans,
    *,
    capped: bool,
    now: datetime,
) -> SubscriptionSnapshot:
    """Return the snapshot of the phase in force with what its timeline tells; `plans` by version.

    What comes later in the billing periods that a record holds is told ahead, so that it needs no push. A spend
    cap, or what credits leave, is compiled when its moment has come: so of what is `capped`, or prepaid, only
    pauses and the end are told ahead.
    """
    by_id = {phase.id: phase for phase in timeline.phases}
    phase = by_id[phase_id]
    horizon = _horizon(timeline, now)
    ahead = [other for other in timeline.phases if phase.starts_at < other.starts_at < horizon]
    then: Then = None
    if timeline.ends_at is not None and timeline.ends_at < horizon:
        then = timeline.ends_at, None
    for later in reversed(ahead):
        plan = plans[later.plan_version_id]
        if (capped or plan.prepaid) and later.kind is not PhaseKind.PAUSED:
            continue
        made = replace(snapshot, plan=plan, spend_cap=None, fitting=None, paused=False, next=then)
        then = later.starts_at, _placed(made, timeline, later, plans, at=later.starts_at)
    return _placed(replace(snapshot, next=then), timeline, phase, plans, at=now)


def _placed(
    snapshot: SubscriptionSnapshot, timeline: Timeline, phase: TimelinePhase, plans: Plans, *, at: datetime
) -> SubscriptionSnapshot:
    period = timeline.period_at(at)
    return replace(
        snapshot,
        paused=snapshot.paused or phase.kind is PhaseKind.PAUSED,
        added=_added(timeline, phase, period, plans),
        counting=counting_in(timeline, phase, period, quota_on_change=snapshot.plan.quota_on_change),
        counting_from_ms=period.start_ms,
    )


def _added(timeline: Timeline, phase: TimelinePhase, period: BillingPeriod, plans: Plans) -> AddedTerms:
    if not phase.add_ons:
        return AddedTerms()
    terms = {
        add_on.plan_version_id: AddOnTerms(
            quota_units=plans[add_on.plan_version_id].quota_units or 0,
            quota_on_change=plans[add_on.plan_version_id].quota_on_change,
            entitlements=plans[add_on.plan_version_id].entitlements,
        )
        for add_on in phase.add_ons
    }
    return AddedTerms(
        units=brought_units(timeline, phase, period, terms),
        units_later=sum(terms[held.plan_version_id].quota_units * held.quantity for held in phase.add_ons),
        entitlements=tuple(name for held in terms.values() for name in held.entitlements),
    )


def _horizon(timeline: Timeline, now: datetime) -> datetime:
    """Return where the billing periods that a record of now holds end."""
    return timeline.period_at(timeline.period_at(now).end).end
