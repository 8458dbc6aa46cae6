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


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.TRIALING: frozenset({Status.ACTIVE, Status.PAST_DUE, Status.PAUSED, Status.CANCELED, Status.ENDED}),
    Status.ACTIVE: frozenset({Status.PAST_DUE, Status.PAUSED, Status.CANCELED, Status.ENDED}),
    Status.PAST_DUE: frozenset({Status.ACTIVE, Status.PAUSED, Status.CANCELED, Status.ENDED}),
    Status.PAUSED: frozenset({Status.ACTIVE, Status.CANCELED, Status.ENDED}),
    Status.CANCELED: frozenset(),
    Status.ENDED: frozenset(),
}
OVER = frozenset({Status.CANCELED, Status.ENDED})


class TransitionRefusedError(ConflictError):
    """A subscription cannot go from the one status to the other."""

    def __init__(self, before: str, after: str) -> None:
        super().__init__("subscription_transition_refused", f"A subscription that is {before} cannot be {after}.")


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
