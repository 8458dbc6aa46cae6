"""Reported events as values, and how they are judged. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from control_plane.usage.retention import LOOK_BACK_DAYS, MINIMUM_DAYS
from gateway_contract.modes import Mode

MAX_EVENTS = 1_000
MAX_EVENT_BYTES = 64 * 1024
MAX_SENT_BYTES = 1024 * 1024
MAX_INFLATED_BYTES = 10 * 1024 * 1024
MAX_FUTURE = timedelta(minutes=5)
# A day less than the hours that can still be counted: the event waits for its hour to be recomputed.
MAX_AGE = timedelta(days=MINIMUM_DAYS - LOOK_BACK_DAYS - 1)
# Longer than anything that was accepted once could be accepted again under the same id.
IDS_KEPT = timedelta(days=MINIMUM_DAYS)
EVENT_ID_PREFIX = "app-"
_EVENT_ID_DIGITS = 40


class Code(StrEnum):
    """Why an event was not taken; stable, for programs."""

    MALFORMED = "malformed_event"
    TOO_LARGE = "event_too_large"
    HOLDS_A_KEY = "key_in_event"
    RESERVED_UNIT = "reserved_unit"
    TOO_OLD = "time_too_old"
    IN_FUTURE = "time_in_future"
    UNKNOWN_SUBJECT = "unknown_subject"
    ACCOUNT_DELETED = "account_deleted"
    MODE_MISMATCH = "mode_mismatch"
    NOT_SUBSCRIBED = "not_subscribed"
    PRODUCT_REQUIRED = "product_required"
    CONFLICT = "conflict"


class Outcome(StrEnum):
    """What became of an event that was sent."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one event; where it was not taken, a code and a sentence that say why."""

    outcome: Outcome
    code: Code | None = None
    message: str = ""


ACCEPTED = Verdict(Outcome.ACCEPTED)
DUPLICATE = Verdict(Outcome.DUPLICATE)


def rejected(code: Code, message: str) -> Verdict:
    """Return the verdict on an event that is not taken."""
    return Verdict(Outcome.REJECTED, code, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEvent:
    """One event as its sender wrote it, well-formed. `at_ms` is None where it has no time: then it is now.

    `content_hash` covers all that the sender said but source and id, and a time that its client has set.
    `size`: in how many bytes it came.
    """

    event_id: str
    content_hash: bytes
    id: str
    source: str
    type: str
    subject: str
    at_ms: int | None = None
    product: str = ""
    mode: Mode | None = None
    endpoint: str = ""
    units: Mapping[str, int] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedEvent:
    """A reported event with its place: whose it is, in which hour, on which plan.

    `plan_days`: how long the plan promises to keep it, None where it promises nothing.
    """

    event: ReportedEvent
    at_ms: int
    account_id: str
    key_id: str
    mode: Mode
    product: str
    subscription_id: str
    plan: str
    plan_days: int | None = None


def event_id_of(source: str, event_id: str) -> str:
    """Return the id under which an event is stored: source and id alone decide it. Neither holds a NUL."""
    digest = hashlib.sha256(f"{source}\0{event_id}".encode()).hexdigest()
    return EVENT_ID_PREFIX + digest[:_EVENT_ID_DIGITS]
