"""The steps of a dispute, and which may follow which. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from control_plane.foundation.errors import ConflictError

MAX_REQUESTS = 10_000
MAX_TEXT = 5_000
# each is looked up and written by itself
MAX_VOIDS = 500


class DisputeStatus(StrEnum):
    """Where a case stands."""

    OPEN = "open"
    UNDER_REVIEW = "under_review"
    DECIDED = "decided"
    CLOSED = "closed"


class Decision(StrEnum):
    """What came of it."""

    ACCEPTED = "accepted"
    PARTLY = "partly"
    REJECTED = "rejected"


class Step(StrEnum):
    """What can happen to a case; each is one entry of its trail."""

    OPENED = "opened"
    REQUESTS_ADDED = "requests_added"
    NOTED = "noted"
    REVIEW_STARTED = "review_started"
    DECIDED = "decided"
    REQUESTS_VOIDED = "requests_voided"
    CLOSED = "closed"
    REOPENED = "reopened"


# step -> the statuses in which it may happen, and the one that it leads to
TRANSITIONS: Mapping[Step, Mapping[DisputeStatus, DisputeStatus]] = {
    Step.REQUESTS_ADDED: {
        DisputeStatus.OPEN: DisputeStatus.OPEN,
        DisputeStatus.UNDER_REVIEW: DisputeStatus.UNDER_REVIEW,
    },
    Step.NOTED: {status: status for status in DisputeStatus},
    Step.REVIEW_STARTED: {DisputeStatus.OPEN: DisputeStatus.UNDER_REVIEW},
    Step.DECIDED: {DisputeStatus.UNDER_REVIEW: DisputeStatus.DECIDED},
    Step.REQUESTS_VOIDED: {DisputeStatus.DECIDED: DisputeStatus.DECIDED},
    Step.CLOSED: {DisputeStatus.DECIDED: DisputeStatus.CLOSED},
    Step.REOPENED: {
        DisputeStatus.DECIDED: DisputeStatus.UNDER_REVIEW,
        DisputeStatus.CLOSED: DisputeStatus.UNDER_REVIEW,
    },
}
_IN_WORDS = {
    Step.REQUESTS_ADDED: "requests cannot be added",
    Step.REVIEW_STARTED: "review cannot start",
    Step.DECIDED: "it cannot be decided",
    Step.REQUESTS_VOIDED: "its requests cannot be voided",
    Step.CLOSED: "it cannot be closed",
    Step.REOPENED: "it cannot be reopened",
}


class DisputeStepRefusedError(ConflictError):
    """The case is not where this could happen."""

    def __init__(self, status: str, step: Step) -> None:
        words = _IN_WORDS.get(step, "this cannot be done")
        super().__init__("dispute_step_refused", f"The dispute is {status.replace('_', ' ')}: {words}.")


class TooManyDisputedRequestsError(ConflictError):
    """A case holds copies of its requests, and only so many."""

    def __init__(self) -> None:
        super().__init__(
            "too_many_disputed_requests",
            f"A dispute may be about at most {MAX_REQUESTS:,} requests: take a shorter span or other filters.",
        )


class TooManyVoidsError(ConflictError):
    """More requests than are voided one by one."""

    def __init__(self) -> None:
        super().__init__(
            "too_many_voids",
            f"A decision voids at most {MAX_VOIDS} requests: name fewer, or amend their hours by sums instead.",
        )


class NoSuchRequestsError(ConflictError):
    """The selection found nothing that is not in the case already."""

    def __init__(self) -> None:
        super().__init__("no_requests_selected", "The selection finds no request of the account.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeFacts:
    """What a case is about, in the customer's words. `amount_text` and `period_text` are not reckoned with."""

    subject: str
    reason: str = ""
    period_text: str = ""
    amount_text: str = ""


def status_after(status: str, step: Step) -> DisputeStatus:
    """Return where a step leads.

    Raises:
        DisputeStepRefusedError: the step cannot be taken there.
    """
    following = TRANSITIONS.get(step, {}).get(DisputeStatus(status))
    if following is None:
        raise DisputeStepRefusedError(status, step)
    return following
