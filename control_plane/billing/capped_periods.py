"""Billing periods as spend caps bound them: what ran, what is in force, what was used. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from control_plane.billing.invoices.due import runs_of
from control_plane.billing.terms import Terms
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.runs import Run, Stretch
from control_plane.rating.spend_cap import CappedPeriod, CountedPhase
from control_plane.subscriptions.timeline import Timeline, TimelinePhase
from control_plane.usage.rollups.phase_units import CountedUnits

Counted = Mapping[tuple[str, datetime], CountedUnits]
NOTHING = CountedUnits()


def capped_period(
    timeline: Timeline,
    in_force: TimelinePhase,
    period: BillingPeriod,
    terms: Mapping[str, Terms],
    counted: Counted,
) -> CappedPeriod | None:
    """Return a billing period with what is in force, None where that costs nothing within it.

    `counted`: units of phases by id and start of the period; those of the phase in force do not matter.
    """
    phases = [phase for phase in timeline.phases_within(period) if phase.costs]
    if not any(phase.plan_version_id == in_force.plan_version_id for phase in phases):
        return None
    units = {phase.id: counted.get((phase.id, period.start), NOTHING) for phase in phases}
    runs = runs_of(
        timeline, period, phases, terms=terms, units={key: found.billable for key, found in units.items()}
    )
    add_ons = frozenset(add_on.plan_version_id for add_on in in_force.add_ons)
    return CappedPeriod(
        runs=(*runs, *_without_time(add_ons.difference(run.version.version_id for run in runs), runs[0], terms)),
        phases=[
            CountedPhase(
                plan_version_id=phase.plan_version_id,
                add_ons=frozenset(add_on.plan_version_id for add_on in phase.add_ons),
                units=units[phase.id].billable,
                units_at_most=units[phase.id].at_most,
            )
            for phase in phases
        ],
        plan_version_id=in_force.plan_version_id,
        add_ons=add_ons,
    )


def is_over(phase: TimelinePhase, in_force: TimelinePhase) -> bool:
    """Say whether something that ran in an earlier phase does not run any more."""
    held = {add_on.plan_version_id for add_on in in_force.add_ons}
    return phase.plan_version_id != in_force.plan_version_id or any(
        add_on.plan_version_id not in held for add_on in phase.add_ons
    )


def _without_time(version_ids: Collection[str], run: Run, terms: Mapping[str, Terms]) -> list[Run]:
    """Return runs of add-ons that are in force, but not within this period: their prices are told all the same."""
    return [
        replace(
            run,
            version=terms[version_id].rated,
            stretches=(Stretch(covered_ms=0),),
            own_quota_units=None,
            extra_units=0,
            setup_fee_due=False,
            starts_ms=0,
        )
        for version_id in sorted(version_ids)
    ]
