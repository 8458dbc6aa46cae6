"""What billing does with a subscription at a moment: charge in advance, draft, close a period, or nothing. Pure.

Each look at a subscription is one step; after a step that leaves something due, the next look is at once. So a
moment years ahead is reached period by period, each billed as it would have been in its time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.foundation.clock import MILLISECOND
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.timeline import PhaseKind, Timeline


class StepKind(StrEnum):
    """`advance`: charge at once what is due before use. `draft`: a period is over, but its usage may still change.
    `close`: bill it. `skip`: a period without anything to bill (a trial). `none`: everything is billed.
    """

    ADVANCE = "advance"
    DRAFT = "draft"
    CLOSE = "close"
    SKIP = "skip"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingRules:
    """`grace` after a period's end its invoice is finalised at the earliest, `max_wait` after it at the latest,
    whether its usage is sealed or not. Drafts are brought up to date every `refresh`.
    """

    grace: timedelta = timedelta(hours=1)
    max_wait: timedelta = timedelta(hours=72)
    refresh: timedelta = timedelta(minutes=15)
    retry: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do about `period`; `next_period` is charged in advance with it, None where there is none.

    `closes_at`: when what is billed was over. `final`: the subscription's last period. `late`: that was billed
    already, only what changed since is billed.
    """

    kind: StepKind
    period: BillingPeriod
    next_period: BillingPeriod | None = None
    closes_at: datetime
    final: bool = False
    late: bool = False


def next_step(
    timeline: Timeline, *, billed_until: datetime, late_since: datetime | None, rules: ClosingRules, now: datetime
) -> Step:
    """Return what to do at `now` with a subscription whose usage before `billed_until` is billed.

    `late_since`: since when it is known that a billed period has changed, None for no such period.
    """
    period = timeline.period_at(billed_until)
    if timeline.ends_at is not None and timeline.ends_at <= min(now, billed_until):
        last = timeline.period_at(max(timeline.started_at, timeline.ends_at - MILLISECOND))
        if late_since is None:
            return Step(kind=StepKind.NONE, period=last, closes_at=timeline.ends_at, final=True)
        # no other invoice follows that could carry what is late
        ready = now >= late_since + rules.grace
        kind = StepKind.CLOSE if ready else StepKind.DRAFT
        return Step(kind=kind, period=last, closes_at=late_since, final=True, late=True)
    closes_at = period.end if timeline.ends_at is None else min(period.end, timeline.ends_at)
    if now < closes_at:
        return Step(kind=StepKind.ADVANCE, period=period, closes_at=closes_at)
    if all(phase.kind is PhaseKind.TRIAL for phase in timeline.phases_within(period)):
        return Step(kind=StepKind.SKIP, period=period, closes_at=closes_at)
    final = timeline.ends_at is not None and timeline.ends_at <= period.end
    return Step(
        kind=StepKind.CLOSE if now >= closes_at + rules.grace else StepKind.DRAFT,
        period=period,
        next_period=None if final else timeline.period_at(period.end),
        closes_at=closes_at,
        final=final,
    )


def next_look(timeline: Timeline, period: BillingPeriod, now: datetime) -> datetime:
    """Return when the running period asks for a look: where it ends, or where something planned begins."""
    moments = [period.end, *(one.starts_at for one in timeline.phases if now < one.starts_at < period.end)]
    if timeline.ends_at is not None:
        moments.append(timeline.ends_at)
    return max(min(moments), now)
