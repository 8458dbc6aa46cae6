"""Moves of many subscriptions as values: whom they concern, who cannot be moved and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.catalog.model import PlanTerms
from control_plane.foundation.errors import ConflictError
from control_plane.subscriptions.timeline import Timeline

DAY = timedelta(days=1)


class ItemStatus(StrEnum):
    """What became of a subscription in a move."""

    WAITING = "waiting"
    PLANNED = "planned"
    MOVED = "moved"
    SKIPPED = "skipped"
    FAILED = "failed"
    EXCLUDED = "excluded"
    CANCELED = "canceled"


OPEN = frozenset({ItemStatus.WAITING, ItemStatus.PLANNED})


class NoticeTooShortError(ConflictError):
    """Customers would learn of the move later than was promised."""

    def __init__(self, notice_days: int, earliest: datetime) -> None:
        super().__init__(
            "notice_too_short",
            f"With {notice_days} days of notice nobody can be moved before {earliest:%Y-%m-%d %H:%M} UTC:"
            " choose a later moment, or a shorter notice.",
        )


class NobodyToMoveError(ConflictError):
    """The preview has no subscription that could be moved."""

    def __init__(self) -> None:
        super().__init__("nobody_to_move", "No subscription can be moved: the preview says why.")


class MoveFinishedError(ConflictError):
    """Nothing of a move is left to be taken back."""

    def __init__(self, move_id: str, status: str) -> None:
        super().__init__("plan_move_finished", f"Plan move {move_id} is {status}: nothing of it is left to do.")


class NotOpenError(ConflictError):
    """The subscription's part of the move is settled."""

    def __init__(self, subscription_id: str, status: str) -> None:
        super().__init__(
            "plan_move_item_settled", f"Subscription {subscription_id} is {status} in this move already."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTime:
    """When subscriptions move: at its first period end from `at` on (`period_end`), or all at `at` (`date`)."""

    timing: str
    at: datetime
    notice_days: int

    def of(self, timeline: Timeline) -> datetime:
        """Return when a subscription moves."""
        if self.timing == "date":
            return self.at
        if timeline.trial_ends_at is not None and timeline.anchor_at >= self.at:
            return timeline.anchor_at  # the trial's end: billed periods begin there
        period = timeline.period_at(self.at)
        return period.start if period.start == self.at else period.end

    def check_notice(self, now: datetime) -> None:
        """Raise NoticeTooShortError where somebody would have to be told before now."""
        earliest = now + self.notice_days * DAY
        if self.at < earliest:
            raise NoticeTooShortError(self.notice_days, earliest)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a subscription cannot be moved, for programs and for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTarget:
    """The version to move to; `terms` in all its currencies."""

    plan_version_id: str
    plan_code: str
    plan_name: str
    version: int
    api_product_id: str
    terms: PlanTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthlyCost:
    """Minor units a month before and after: `recurring` flat prices, `month` with the last 30 days' use."""

    recurring_before_minor: int
    recurring_after_minor: int
    month_before_minor: int
    month_after_minor: int

    @property
    def difference_minor(self) -> int:
        return self.month_after_minor - self.month_before_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A subscription on one of the versions to move from. `cannot`: why it stays; `cost` None where not sold.

    `setup_fee_minor`: due once when it moves, of who has never paid one.
    """

    timeline: Timeline
    account_id: str
    account_name: str
    currency: str
    from_plan_version_id: str
    from_plan_code: str
    from_version: int
    effective_at: datetime
    cannot: Reason | None
    cost: MonthlyCost | None
    setup_fee_minor: int = 0

    @property
    def subscription_id(self) -> str:
        return self.timeline.subscription_id


def reason_against(
    timeline: Timeline,
    target: MoveTarget,
    *,
    currency: str,
    spend_cap_minor: int | None,
    fixed_minor: int,
    effective_at: datetime,
    in_another_move: bool,
    now: datetime,
) -> Reason | None:
    """Return why a subscription cannot be moved, None where it can.

    `fixed_minor`: what a billing period of the target costs unused.
    """
    terms, ends_at = target.terms, timeline.ends_at
    reasons = (
        (
            timeline.api_product_id != target.api_product_id,
            Reason("product_differs", "the plan belongs to another API product"),
        ),
        (
            timeline.interval != terms.interval,
            Reason(
                "interval_differs",
                f"it is billed by the {timeline.interval}, the plan by the {terms.interval}",
            ),
        ),
        (
            timeline.billed_by != terms.billed_by,
            Reason("billing_differs", f"it is billed by {timeline.billed_by}, the plan by {terms.billed_by}"),
        ),
        (
            timeline.billed_by == "stripe",
            Reason("billed_by_stripe", "Stripe bills it: change its plan by itself, so that it changes there"),
        ),
        (
            not terms.is_sold_in(currency),
            Reason("currency_differs", f"the account pays in {currency}, in which the plan has no prices"),
        ),
        (
            ends_at is not None and ends_at <= effective_at,
            Reason("subscription_ending", f"it ends on {ends_at:%Y-%m-%d}" if ends_at else ""),
        ),
        (in_another_move, Reason("in_another_move", "another move waits for it")),
        (
            has_planned_change(timeline, now=now),
            Reason("change_planned", "the customer has a change of plan planned already"),
        ),
        (
            spend_cap_minor is not None and fixed_minor > spend_cap_minor,
            Reason(
                "spend_cap_below_fixed_charges", "the plan costs more before any use than the customer's spend cap"
            ),
        ),
    )
    return next((reason for holds, reason in reasons if holds), None)


def moments_of(effective_at: datetime, *, trial_ends_at: datetime | None) -> tuple[datetime, ...]:
    """Return when a planned move may begin: as planned, or at the end of a trial that was made longer since."""
    if trial_ends_at is None or trial_ends_at <= effective_at:
        return (effective_at,)
    return effective_at, trial_ends_at


def has_planned_change(timeline: Timeline, *, now: datetime) -> bool:
    """Say whether another version than the running one lies ahead."""
    versions = [phase.plan_version_id for phase in timeline.phases if phase.ends_at is None or phase.ends_at > now]
    return len(set(versions)) > 1


def total_difference(candidates: Sequence[Candidate]) -> dict[str, MonthlyCost]:
    """Return sums over those that can be moved, by currency."""
    sums: dict[str, list[int]] = {}
    for one in candidates:
        if one.cannot is None and one.cost is not None:
            amounts = sums.setdefault(one.currency, [0, 0, 0, 0])
            for place, amount in enumerate(
                (
                    one.cost.recurring_before_minor,
                    one.cost.recurring_after_minor,
                    one.cost.month_before_minor,
                    one.cost.month_after_minor,
                )
            ):
                amounts[place] += amount
    return {
        currency: MonthlyCost(
            recurring_before_minor=amounts[0],
            recurring_after_minor=amounts[1],
            month_before_minor=amounts[2],
            month_after_minor=amounts[3],
        )
        for currency, amounts in sorted(sums.items())
    }
