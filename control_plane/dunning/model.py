"""When which step of a case is due. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

After = Literal["block", "free", "serve"]

DAY: Final = timedelta(days=1)
# what is shorter needs no reminder between its first day and its last
REMINDED_FROM: Final = timedelta(days=4)


class CaseState(StrEnum):
    """`recovered` and `over` (the subscription ended) are closed."""

    GRACE = "grace"
    BLOCKED = "blocked"
    FALLEN_BACK = "fallen_back"
    RECOVERED = "recovered"
    OVER = "over"


class Step(StrEnum):
    """What is done next; the first three are notices, and stand in `told` once they were queued."""

    FAILED = "failed"
    REMINDER = "reminder"
    LAST_DAY = "last_day"
    FALL = "fall"


@dataclass(frozen=True, slots=True, kw_only=True)
class DunningConfig:
    """How long unpaid subscriptions are served, and what holds then; `by_plan` decides for plans by their code.

    `free_plans`: codes, of which one of the same API product is taken. The first notice waits `settle` for news
    that change what it says, and up to `wait_for_invoice` for an invoice that can be named. `trial_notice`: how
    long before its end a trial is told of; 0: not at all.
    """

    grace: timedelta = timedelta(days=14)
    after: After = "block"
    free_plans: tuple[str, ...] = ("free",)
    by_plan: Mapping[str, After] = field(default_factory=dict)
    settle: timedelta = timedelta(seconds=15)
    wait_for_invoice: timedelta = timedelta(minutes=10)
    trial_notice: timedelta = timedelta(days=3)
    poll_seconds: float = 1.0
    cases_per_pass: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """What of a case decides about its next step."""

    state: CaseState
    after: After
    opened_at: datetime
    grace_until: datetime
    told: Collection[str]
    last_notice_at: datetime | None

    @property
    def holds_at_once(self) -> bool:
        """Without any grace: the mail that tells of the end is the first."""
        return self.grace_until <= self.opened_at and self.after != "serve"


def next_step(case: CaseFacts, *, config: DunningConfig) -> tuple[Step, datetime] | None:
    """Return the next step of an open case and when it is due; None where nothing is left but to wait.

    Nobody loses anything without a day's notice: where nothing ran when it was due, the last day begins with the
    notice. A reminder that comes with the last day, or after it, is left out.
    """
    if case.state is not CaseState.GRACE:
        return None
    if Step.FAILED not in case.told:
        return Step.FAILED, case.opened_at + (timedelta() if case.holds_at_once else config.settle)
    if case.after == "serve":
        return _reminder(case)
    length = case.grace_until - case.opened_at
    last_day_at = case.grace_until - DAY
    if length <= DAY:
        return Step.FALL, case.grace_until
    if Step.LAST_DAY not in case.told:
        return _reminder(case) or (Step.LAST_DAY, last_day_at)
    noticed_at = case.last_notice_at or last_day_at
    return Step.FALL, max(case.grace_until, noticed_at + DAY)


def step_due(case: CaseFacts, *, config: DunningConfig, now: datetime) -> Step | None:
    """Return the step to take now, or None."""
    found = next_step(case, config=config)
    if found is None or found[1] > now:
        return None
    step = found[0]
    if step is Step.REMINDER and case.after != "serve" and now >= case.grace_until - DAY:
        return Step.LAST_DAY
    return step


def ends_at(case: CaseFacts, now: datetime) -> datetime:
    """Return when the grace is over: never less than a day after its last day was told of."""
    if case.state is not CaseState.GRACE or case.grace_until - case.opened_at <= DAY:
        return case.grace_until
    if case.last_notice_at is not None:
        return max(case.grace_until, case.last_notice_at + DAY)
    return max(case.grace_until, now + DAY)


def _reminder(case: CaseFacts) -> tuple[Step, datetime] | None:
    length = case.grace_until - case.opened_at
    if Step.REMINDER in case.told or length < REMINDED_FROM:
        return None
    return Step.REMINDER, case.opened_at + length / 2
