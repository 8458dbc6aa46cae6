"""The status machine of subscriptions, and the values that speak of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from control_plane.foundation.errors import ConflictError


class Status(StrEnum):
    """`canceled` ended before its time by somebody's wish, `ended` at the time that was set."""

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    CANCELED = "canceled"
    ENDED = "ended"


# every step there is, and what takes it (docs/subscriptions.md has the same table)
TRANSITIONS: Mapping[Status, Mapping[Status, str]] = {
    Status.TRIALING: {
        Status.ACTIVE: "the trial ends, or is ended early",
        Status.CANCELED: "cancel now",
        Status.ENDED: "the trial ends and the plan does not go on, or it was cancelled",
    },
    Status.ACTIVE: {
        Status.PAST_DUE: "a payment is overdue",
        Status.PAUSED: "pause",
        Status.CANCELED: "cancel now",
        Status.ENDED: "its end comes: cancelled at period end",
    },
    Status.PAST_DUE: {
        Status.ACTIVE: "the payment arrives",
        Status.PAUSED: "pause",
        Status.CANCELED: "cancel now",
        Status.ENDED: "its end comes: cancelled at period end",
    },
    Status.PAUSED: {
        Status.ACTIVE: "resume",
        Status.CANCELED: "cancel now",
        Status.ENDED: "its end comes: cancelled at period end",
    },
    Status.CANCELED: {},
    Status.ENDED: {},
}
OVER = frozenset({Status.CANCELED, Status.ENDED})
# what to do instead of a step that is refused
_INSTEAD = {
    (Status.TRIALING, Status.PAUSED): "a trial costs nothing: let it run, end it or cancel",
    (Status.TRIALING, Status.PAST_DUE): "a trial costs nothing, so nothing can be overdue",
    (Status.PAUSED, Status.PAST_DUE): "resume it first",
}


class TransitionRefusedError(ConflictError):
    """A subscription cannot go from the one status to the other."""

    def __init__(self, before: str, after: str) -> None:
        words = f"A subscription that is {before} cannot be {after}"
        instead = _INSTEAD.get((Status(before), Status(after)))
        super().__init__("subscription_transition_refused", f"{words}: {instead}." if instead else f"{words}.")


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase with what usage needs to know of it: [starts_at, ends_at), open when `ends_at` is None."""

    account_id: str
    product_code: str
    subscription_id: str
    phase_id: str
    plan_version_id: str
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """What `advance` did: accounts told of changed products, phases begun, subscriptions ended, caps told anew."""

    accounts_told: int
    phases_begun: int
    subscriptions_ended: int
    caps_renewed: int = 0


def check_transition(before: str, after: str) -> Status:
    """Return the new status.

    Raises:
        TransitionRefusedError: the table has no such step.
    """
    if Status(after) not in TRANSITIONS[Status(before)]:
        raise TransitionRefusedError(before, after)
    return Status(after)
