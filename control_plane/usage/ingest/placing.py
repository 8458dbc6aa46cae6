"""Where a reported event counts: whose it is, when, on which product and plan. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.foundation.clock import to_ms
from control_plane.usage.ingest.model import (
    MAX_AGE,
    MAX_FUTURE,
    Code,
    PlacedEvent,
    ReportedEvent,
    Verdict,
    rejected,
)
from gateway_contract.modes import Mode


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an event is about: an account, or one of its keys. `mode` is the key's."""

    account_id: str
    deleted: bool = False
    key_id: str = ""
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """An account was on a plan of a product for [start_ms, end_ms); events are kept `plan_days`, if it says so."""

    product: str
    subscription_id: str
    plan: str
    start_ms: int
    end_ms: int | None
    plan_days: int | None = None

    def __contains__(self, at_ms: int) -> bool:
        return self.start_ms <= at_ms and (self.end_ms is None or at_ms < self.end_ms)


@dataclass(frozen=True, slots=True)
class Directory:
    """The subjects that were asked for, and what their accounts were ever subscribed to."""

    subjects: Mapping[str, Subject] = field(default_factory=dict)
    subscribed: Mapping[str, Sequence[Subscribed]] = field(default_factory=dict)


def place(event: ReportedEvent, directory: Directory, *, now: datetime) -> PlacedEvent | Verdict:
    """Return the event with its place, or why it has none. An event without a time happens `now`."""
    at_ms = to_ms(now) if event.at_ms is None else event.at_ms
    if (out_of_range := _judge_time(at_ms, now)) is not None:
        return out_of_range
    subject = directory.subjects.get(event.subject)
    if subject is None:
        return rejected(
            Code.UNKNOWN_SUBJECT, "Its subject is no account, external id of an account, or API key id."
        )
    if subject.deleted:
        return rejected(Code.ACCOUNT_DELETED, "Its account was deleted.")
    mode = event.mode or subject.mode or Mode.LIVE
    if subject.mode not in {None, mode}:
        return rejected(Code.MODE_MISMATCH, f"Its mode is {mode.value}, its key's is not.")
    found = _subscribed(event, directory.subscribed.get(subject.account_id, ()), at_ms)
    if isinstance(found, Verdict):
        return found
    return PlacedEvent(
        event=event,
        at_ms=at_ms,
        account_id=subject.account_id,
        key_id=subject.key_id,
        mode=mode,
        product=found.product,
        subscription_id=found.subscription_id,
        plan=found.plan,
        plan_days=found.plan_days,
    )


def _judge_time(at_ms: int, now: datetime) -> Verdict | None:
    if at_ms > to_ms(now + MAX_FUTURE):
        return rejected(Code.IN_FUTURE, "Its time is more than 5 minutes ahead.")
    if at_ms < to_ms(now - MAX_AGE):
        return rejected(Code.TOO_OLD, f"Its time is more than {MAX_AGE.days} days ago.")
    return None


def _subscribed(event: ReportedEvent, every: Sequence[Subscribed], at_ms: int) -> Subscribed | Verdict:
    then = [phase for phase in every if at_ms in phase and event.product in {"", phase.product}]
    if not then:
        what = f"to {event.product}" if event.product else "to any product"
        return rejected(Code.NOT_SUBSCRIBED, f"The account was not subscribed {what} at that time.")
    if len({phase.product for phase in then}) > 1:
        return rejected(
            Code.PRODUCT_REQUIRED, "The account has several subscriptions: name the `product` in the data."
        )
    return then[-1]
