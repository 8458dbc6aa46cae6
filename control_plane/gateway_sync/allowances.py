"""Which calls of a billing period count against which plan's quota, where the plan changed within it. Pure.

The same rule as invoices follow (docs/pricing-models.md): units of one plan version are put together, however
often it ran in the period. A version's quota counts its own units; under `carry` all that were used before, too.
The counters of a period keep the units of each version apart that began within it; what is in none of these parts
is the first one's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from control_plane.foundation.clock import to_ms
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import WHOLE_PERIOD, Share
from control_plane.rating.runs import allowance_share
from control_plane.rating.versions import CARRY
from control_plane.subscriptions.timeline import PhaseKind, Timeline, TimelinePhase
from gateway_contract.counters import plan_part
from gateway_contract.records import Allowance


@dataclass(frozen=True, slots=True)
class RanPhase:
    """A plan version from a moment on; pauses are left out."""

    plan_version_id: str
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class AddOnTerms:
    """What one of an add-on brings to a plan."""

    quota_units: int
    quota_on_change: str
    entitlements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counting:
    """How a plan version's units count in a billing period.

    `allowance` None: all units of the period do. `share`: the part of its quota that it has in the period.
    `parts`: when calls were counted in each part first.
    """

    allowance: Allowance | None
    share: Share
    parts: Mapping[str, datetime]


def counting_in(
    timeline: Timeline, phase: TimelinePhase, period: BillingPeriod, *, quota_on_change: str
) -> Counting:
    """Return how units count while a phase of the timeline is in force in a billing period."""
    ran = [other for other in _ran(timeline) if other.starts_at <= phase.starts_at]
    begun = begun_within(ran, period)
    share = _share(timeline, phase, period, quota_on_change)
    # none ran where all of the period was paused so far
    first, *later = begun or [phase.plan_version_id]
    if not later:
        return Counting(None, share, {})
    parts = {plan_part(version): begun[version] for version in later}
    own = plan_part(phase.plan_version_id)
    allowance = Allowance(
        period_start_ms=to_ms(period.start),
        part="" if phase.plan_version_id == first else own,
        others=tuple(part for part in parts if part != own),
        carried=quota_on_change == CARRY,
    )
    return Counting(allowance, share, parts)


def ran_phase(
    plan_version_id: str, kind: PhaseKind, starts_at: datetime, ends_at: datetime | None, *, anchor_at: datetime
) -> RanPhase:
    """Return a phase as it counts: a trial that was ended early does not in the hour in which billing begins."""
    if kind is PhaseKind.TRIAL:
        ends_at = anchor_at if ends_at is None else min(ends_at, anchor_at)
    return RanPhase(plan_version_id, starts_at, ends_at)


def begun_within(phases: Iterable[RanPhase], period: BillingPeriod) -> dict[str, datetime]:
    """Return when each plan version first ran in the period, in that order; `phases` in the order of time."""
    begun: dict[str, datetime] = {}
    for phase in phases:
        if phase.starts_at < period.end and (phase.ends_at is None or phase.ends_at > period.start):
            begun.setdefault(phase.plan_version_id, max(phase.starts_at, period.start))
    return begun


def parts_within(phases: Iterable[RanPhase], period: BillingPeriod, *, until: datetime) -> dict[str, str]:
    """Return, by plan version, the parts in which calls of the period before a moment may be counted."""
    begun = [version for version, starts_at in begun_within(phases, period).items() if starts_at < until]
    return {version: plan_part(version) for version in begun[1:]}


def brought_units(
    timeline: Timeline, phase: TimelinePhase, period: BillingPeriod, terms: Mapping[str, AddOnTerms]
) -> int:
    """Return the units that the add-ons of a phase add to its quota in a billing period."""
    units = 0
    for add_on in phase.add_ons:
        share = WHOLE_PERIOD
        starts = [
            part.charged_from
            for part in timeline.phases_within(period)
            if part.costs and add_on.plan_version_id in {held.plan_version_id for held in part.add_ons}
        ]
        found = terms[add_on.plan_version_id]
        if starts:
            share = _share_from(min(starts), period, found.quota_on_change)
        units += share.of_units(found.quota_units * add_on.quantity)
    return units


def _ran(timeline: Timeline) -> list[RanPhase]:
    return [
        ran_phase(phase.plan_version_id, phase.kind, phase.starts_at, phase.ends_at, anchor_at=timeline.anchor_at)
        for phase in timeline.phases
        if phase.kind is not PhaseKind.PAUSED
    ]


def _share(timeline: Timeline, phase: TimelinePhase, period: BillingPeriod, quota_on_change: str) -> Share:
    """Return the part of its quota that a version has: as invoices have it, and the whole in a trial."""
    if not phase.costs:
        return WHOLE_PERIOD
    starts = [
        part.charged_from
        for part in timeline.phases_within(period)
        if part.costs and part.plan_version_id == phase.plan_version_id
    ]
    return _share_from(min(starts), period, quota_on_change) if starts else WHOLE_PERIOD


def _share_from(starts_at: datetime, period: BillingPeriod, quota_on_change: str) -> Share:
    start_ms = to_ms(period.start)
    return allowance_share(
        starts_ms=to_ms(starts_at) - start_ms,
        period_ms=to_ms(period.end) - start_ms,
        quota_on_change=quota_on_change,
    )
