"""One subscription's billing periods, worked out as they were and under other terms of a plan. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.billing.comparisons.fitting_plans import OwnQuota, most_units
from control_plane.billing.invoices.due import due_lines, runs_of
from control_plane.billing.terms import Terms
from control_plane.catalog.model import PlanTerms
from control_plane.foundation.clock import MILLISECOND
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.runs import Run
from control_plane.rating.versions import CARRY, REQUESTS
from control_plane.subscriptions.timeline import Timeline

Units = Mapping[tuple[str, datetime], Mapping[str, int]]
NEW = "what-if"
"""The new terms' place among plan versions."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Minor units of all periods, before discounts and taxes; `after_minor` None where the terms are not sold."""

    before_minor: int
    after_minor: int | None
    refused_units: int


def ended_periods(timeline: Timeline, *, as_of: datetime, months: int) -> list[BillingPeriod]:
    """Return the billing periods of the last months that are over and had the subscription, oldest first.

    Of yearly plans one for each year begun: the last that is over, at least.
    """
    count = months if timeline.interval == "month" else -(-months // 12)
    found: list[BillingPeriod] = []
    period = timeline.period_at(as_of)
    for _ in range(count):
        period = timeline.period_at(period.start - MILLISECOND)
        if period.end <= timeline.started_at:
            break
        if timeline.phases_within(period):
            found.append(period)
    return found[::-1]


def replay(
    timeline: Timeline,
    periods: Sequence[BillingPeriod],
    *,
    terms: Mapping[str, Terms],
    of_plan: Collection[str],
    new: Terms | None,
    new_terms: PlanTerms,
    units: Units,
) -> Replayed:
    """Return what the periods came to, and with `new` in place of every version `of_plan`.

    What the new terms would have refused in a period, by a hard quota or a cap with what add-ons brought to it, is
    taken off the use of that period, of every meter as much as of calls. A setup fee falls due where the
    subscription began within the periods, as it did.
    """
    moved = _moved(timeline, of_plan)
    before = after = refused = 0
    for period in periods:
        used = {
            phase.id: units[phase.id, period.start]
            for phase in timeline.phases
            if (phase.id, period.start) in units
        }
        before += sum(line.amount_minor for line in due_lines(timeline, period, terms=terms, units=used))
        if new is None:
            continue
        own = {**terms, NEW: new}
        above, left = _let_through(moved, period, used, new_terms, own)
        refused += above
        after += sum(line.amount_minor for line in due_lines(moved, period, terms=own, units=left))
    return Replayed(before, None if new is None else after, refused)


def _most(run: Run, new_terms: PlanTerms, own: OwnQuota) -> int | None:
    """Return the quota units above which calls are refused while the new terms run, as the gateway counts them."""
    most = most_units(new_terms, own)
    if most is None:
        return None
    first = run.stretches[0]
    before = first.units_before.get(REQUESTS, 0) if new_terms.quota_on_change == CARRY else 0
    return max(0, run.allowance_share.of_units(most) + run.extra_units - before)


def _moved(timeline: Timeline, of_plan: Collection[str]) -> Timeline:
    phases = tuple(
        replace(phase, plan_version_id=NEW) if phase.plan_version_id in of_plan else phase
        for phase in timeline.phases
    )
    return replace(timeline, phases=phases)


def _let_through(
    timeline: Timeline,
    period: BillingPeriod,
    used: Mapping[str, Mapping[str, int]],
    new_terms: PlanTerms,
    terms: Mapping[str, Terms],
) -> tuple[int, Mapping[str, Mapping[str, int]]]:
    """Return the quota units that would have been refused, and what is left of the use."""
    if not new_terms.quota_hard and new_terms.quota_cap_units is None and timeline.quota_cap_override is None:
        return 0, used
    phases = [phase for phase in timeline.phases_within(period) if phase.costs]
    own = {phase.id for phase in phases if phase.plan_version_id == NEW}
    asked = sum(used.get(phase_id, {}).get(REQUESTS, 0) for phase_id in own)
    runs = runs_of(timeline, period, phases, terms=terms, units=used)
    most = next(
        (
            _most(run, new_terms, OwnQuota(run.own_quota_units, timeline.quota_cap_override))
            for run in runs
            if run.version.version_id == NEW
        ),
        None,
    )
    if most is None or asked <= most:
        return 0, used
    left = {
        phase_id: {meter: count * most // asked for meter, count in units.items()} if phase_id in own else units
        for phase_id, units in used.items()
    }
    return asked - most, left
