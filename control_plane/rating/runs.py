"""From the phases of a subscription to the runs that a billing period is rated by.

Phases of one version are put together, then each version is rated on its own usage, with amounts per period cut by
the time it ran. So cutting a phase in two never changes a bill, and an upgrade never turns units that were
included into overage. Time that costs nothing (a trial, a pause) is simply not among the phases.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.rating.model import WHOLE_PERIOD, RatingError, Share
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.versions import PRORATED, RatedVersion

_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a run without a break: time that is paid, and what was used in it, by meter.

    `units_before`: what was used in the billing period before the stretch, under any version; only of meters that
    add up, and only needed for versions that carry. `quantity`: how many of an add-on were held.
    """

    covered_ms: int
    units: Mapping[str, int] = field(default_factory=dict)
    units_before: Mapping[str, int] = field(default_factory=dict)
    quantity: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A version of a plan or add-on within one billing period: its stretches, at least one, in order of time.

    `starts_ms`: how long after the period's start the version first ran. `own_quota_units`: the subscription's own
    quota in place of the plan's. `extra_units`: what add-ons add to it. `setup_fee_due`: the setup fee falls into
    this period.
    """

    version: RatedVersion
    period_ms: int
    stretches: tuple[Stretch, ...]
    starts_ms: int = 0
    own_quota_units: int | None = None
    extra_units: int = 0
    setup_fee_due: bool = False

    @property
    def share(self) -> Share:
        """Return the part of the period for which the version ran."""
        return Share(sum([stretch.covered_ms for stretch in self.stretches]), self.period_ms)

    @property
    def allowance_share(self) -> Share:
        """Return the part of its allowances that the version has."""
        return allowance_share(
            starts_ms=self.starts_ms, period_ms=self.period_ms, quota_on_change=self.version.quota_on_change
        )

    @property
    def quantity(self) -> int:
        """Return the most that was held at one time."""
        return max((stretch.quantity for stretch in self.stretches), default=1)

    def used_units(self, meter: str) -> int:
        """Return what was used of a meter while the version ran."""
        return sum([stretch.units.get(meter, 0) for stretch in self.stretches])


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


def allowance_share(*, starts_ms: int, period_ms: int, quota_on_change: str) -> Share:
    """Return the part of an allowance that a version has which first runs `starts_ms` into a billing period.

    Under `prorated` it is the time that is left of the period, else the whole. What remains of it does not shrink
    when the version ends early: units that were included when they were used stay so.
    """
    if quota_on_change != PRORATED or not starts_ms:
        return WHOLE_PERIOD
    return Share(period_ms - starts_ms, period_ms)


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
