"""Plan changes within a billing period: which plan version ran for how long, with how many units.

The rule, in full: phases of one plan version are put together, then each plan version is rated on its own usage,
with amounts per period cut by the time it ran and with its allowance whole. So cutting a phase in two never
changes a bill, and an upgrade never turns units that were included into overage.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.rating.model import RatingError, Share

_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUsage:
    """What was used, by meter, while a plan version was in force: [starts_at, ends_at), None for no end yet.

    `add_ons`: how many of each version of an add-on were held beside it. Of a meter that does not add up, the one
    value of a plan version stands in any one of its phases.
    """

    plan_version_id: str
    starts_at: datetime
    ends_at: datetime | None
    units: Mapping[str, int] = field(default_factory=dict)
    add_ons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionUsage:
    """The same put together for one plan version and billing period."""

    plan_version_id: str
    share: Share
    units: Mapping[str, int]


def merge_phases(
    phases: Iterable[PhaseUsage], *, period_start: datetime, period_end: datetime
) -> list[VersionUsage]:
    """Return one entry for each plan version that ran within [period_start, period_end), in order of first start.

    A phase without end counts to the period's end: this is what the period costs if nothing changes.
    Times are counted in whole ms.

    Raises:
        RatingError: two phases overlap, or a phase ends before it starts.
    """
    covered_ms: dict[str, int] = {}
    units: dict[str, Counter[str]] = {}
    free_from = period_start
    for phase in sorted(phases, key=lambda phase: phase.starts_at):
        start = max(phase.starts_at, period_start)
        end = period_end if phase.ends_at is None else min(phase.ends_at, period_end)
        if phase.ends_at is not None and phase.ends_at < phase.starts_at:
            raise RatingError("phases", f"a phase ends at {phase.ends_at}, before it starts")
        if start >= end:
            continue
        if start < free_from:
            raise RatingError("phases", f"two phases overlap at {start}")
        free_from = end
        version = phase.plan_version_id
        covered_ms[version] = (
            covered_ms.get(version, 0) + (end - period_start) // _MS - (start - period_start) // _MS
        )
        units.setdefault(version, Counter()).update(phase.units)
    period_ms = (period_end - period_start) // _MS
    return [
        VersionUsage(plan_version_id=version, share=Share(ms, period_ms), units=dict(units[version]))
        for version, ms in covered_ms.items()
    ]
