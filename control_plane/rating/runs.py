"""From the phases of a subscription to the runs that a billing period is rated by.

Phases of one version are put together, so cutting a phase in two never changes a bill. Time that costs nothing (a
trial, a pause) is simply not among the phases.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.rating.model import RatingError
from control_plane.rating.period import Run, Stretch, allowance_share
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.versions import RatedVersion

_MS = timedelta(milliseconds=1)


@dataclass(slots=True)
class _Found:
    """What was found of one version so far. `extra_units`: the most that add-ons brought it at one time."""

    starts_ms: int
    stretches: list[Stretch] = field(default_factory=list)
    extra_units: int = 0


def period_runs(
    phases: Iterable[PhaseUsage],
    versions: Mapping[str, RatedVersion],
    *,
    period_start: datetime,
    period_end: datetime,
    own_quota_units: int | None = None,
    setup_fees_due: Collection[str] = (),
    not_carried: Collection[str] = (),
) -> tuple[Run, ...]:
    """Return the runs of all versions, add-ons after plans, each in order of first start. Times count in whole ms.

    `phases`, in any order, are those that cost something; without an end one counts to the period's. Usage is
    that within the period. `setup_fees_due`: versions whose setup fee falls into this period. `not_carried`:
    meters that do not add up: what was used of them before never counts against an allowance.

    Raises:
        RatingError: two phases overlap, or a phase ends before it starts. KeyError: a version is not given.
    """
    period_ms = (period_end - period_start) // _MS
    plans: dict[str, _Found] = {}
    add_ons: dict[str, _Found] = {}
    before: Counter[str] = Counter()
    for phase, starts_ms, ends_ms in _within(phases, period_start, period_end):
        covered_ms, used_before = ends_ms - starts_ms, dict(before)
        plan = plans.setdefault(phase.plan_version_id, _Found(starts_ms))
        plan.stretches.append(Stretch(covered_ms=covered_ms, units=phase.units, units_before=used_before))
        brought = 0
        for version_id, quantity in phase.add_ons.items():
            add_on = add_ons.setdefault(version_id, _Found(starts_ms))
            add_on.stretches.append(
                Stretch(covered_ms=covered_ms, units=phase.units, units_before=used_before, quantity=quantity)
            )
            brought += _brought(versions[version_id], quantity, add_on.starts_ms, period_ms)
        plan.extra_units = max(plan.extra_units, brought)
        before.update({meter: units for meter, units in phase.units.items() if meter not in not_carried})
    return tuple(
        Run(
            version=versions[version_id],
            period_ms=period_ms,
            stretches=tuple(found.stretches),
            starts_ms=found.starts_ms,
            own_quota_units=None if versions[version_id].is_add_on else own_quota_units,
            extra_units=found.extra_units,
            setup_fee_due=version_id in setup_fees_due,
        )
        for version_id, found in (*plans.items(), *add_ons.items())
    )


def _within(
    phases: Iterable[PhaseUsage], period_start: datetime, period_end: datetime
) -> Iterator[tuple[PhaseUsage, int, int]]:
    """Yield phases in order of time with their start and end within the period, in ms since it began."""
    free_from = period_start
    for phase in sorted(phases, key=lambda phase: phase.starts_at):
        if phase.ends_at is not None and phase.ends_at < phase.starts_at:
            raise RatingError("phases", f"a phase ends at {phase.ends_at}, before it starts")
        start = max(phase.starts_at, period_start)
        end = period_end if phase.ends_at is None else min(phase.ends_at, period_end)
        if start >= end:
            continue
        if start < free_from:
            raise RatingError("phases", f"two phases overlap at {start}")
        free_from = end
        yield phase, (start - period_start) // _MS, (end - period_start) // _MS


def _brought(version: RatedVersion, quantity: int, starts_ms: int, period_ms: int) -> int:
    """Return what a number of an add-on brings to the plan's quota."""
    share = allowance_share(starts_ms=starts_ms, period_ms=period_ms, quota_on_change=version.quota_on_change)
    return share.of_units((version.quota_units or 0) * quantity)
