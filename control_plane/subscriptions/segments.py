"""What is to come of a subscription, as plain values: which plan version, of which kind, from when to when.

Operations take what lies ahead, change it, and `phases.rewrite` writes it down.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from control_plane.subscriptions.timeline import PhaseKind


@dataclass(frozen=True, slots=True)
class Segment:
    """One plan version of one kind for [starts_at, ends_at); None: without end."""

    plan_version_id: str
    kind: PhaseKind
    starts_at: datetime
    ends_at: datetime | None

    def goes_on_in(self, other: "Segment") -> bool:
        """Say whether the other, which follows, is of the same version and kind."""
        return (self.plan_version_id, self.kind) == (other.plan_version_id, other.kind)


def from_moment(segments: Sequence[Segment], at: datetime) -> list[Segment]:
    """Return what is left of segments from a moment on."""
    left = [one for one in segments if one.ends_at is None or one.ends_at > at]
    return [replace(one, starts_at=max(one.starts_at, at)) for one in left]


def until(segments: Sequence[Segment], at: datetime | None) -> list[Segment]:
    """Return segments up to a moment, the last of which ends there; None: the last goes on without end."""
    kept = [one for one in segments if at is None or one.starts_at < at]
    return [*kept[:-1], replace(kept[-1], ends_at=at)] if kept else []


def with_version(segments: Sequence[Segment], plan_version_id: str) -> list[Segment]:
    return [replace(one, plan_version_id=plan_version_id) for one in segments]


def without_version(
    segments: Sequence[Segment], plan_version_id: str, *, begins: Collection[datetime]
) -> list[Segment]:
    """Return segments as if a version did not begin at one of these moments: what runs before it goes on."""
    left: list[Segment] = []
    leaving_out = False
    for one in segments:
        leaving_out = one.plan_version_id == plan_version_id and (
            leaving_out or (bool(left) and one.starts_at in begins)
        )
        left.append(replace(one, plan_version_id=left[-1].plan_version_id) if leaving_out else one)
    return left


def with_kind(segments: Sequence[Segment], kind: PhaseKind) -> list[Segment]:
    return [replace(one, kind=kind) for one in segments]


def normalised(segments: Sequence[Segment], cuts: Collection[datetime]) -> list[Segment]:
    """Return the same segments, cut at the given moments and nowhere else between equal neighbours."""
    joined: list[Segment] = []
    for one in segments:
        if joined and joined[-1].goes_on_in(one):
            joined[-1] = replace(joined[-1], ends_at=one.ends_at)
        else:
            joined.append(one)
    return [part for one in joined for part in _cut(one, cuts)]


def _cut(segment: Segment, cuts: Collection[datetime]) -> list[Segment]:
    inside = sorted(
        at for at in set(cuts) if segment.starts_at < at and (segment.ends_at is None or at < segment.ends_at)
    )
    starts, ends = [segment.starts_at, *inside], [*inside, segment.ends_at]
    return [replace(segment, starts_at=start, ends_at=end) for start, end in zip(starts, ends, strict=True)]
