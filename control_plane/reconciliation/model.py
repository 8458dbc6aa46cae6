"""What a reconciliation compares, and what it says of differences. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Link(StrEnum):
    """Two neighbours on the way from a call to an invoice, which must hold the same."""

    GATEWAY_EVENTS = "gateway_events"
    EVENTS_ROLLUPS = "events_rollups"
    ROLLUPS_LEDGER = "rollups_ledger"
    LEDGER_INVOICES = "ledger_invoices"
    LEDGER_REPORTS = "ledger_reports"
    REPORTS_STRIPE = "reports_stripe"
    STRIPE_INVOICES = "stripe_invoices"


SENTENCES = {
    Link.GATEWAY_EVENTS: "calls that the gateway admitted, and stored events",
    Link.EVENTS_ROLLUPS: "stored events, and hourly rollups with the gateway's counters",
    Link.ROLLUPS_LEDGER: "rollups of sealed hours, and the ledger that bills are made from",
    Link.LEDGER_INVOICES: "what is due for billed periods, and our own invoices",
    Link.LEDGER_REPORTS: "the ledger, and usage reported to Stripe",
    Link.REPORTS_STRIPE: "usage reported to Stripe, and what Stripe has added up",
    Link.STRIPE_INVOICES: "what we expected Stripe's invoices to say, and what they say",
}


class Severity(StrEnum):
    """`wrong`: somebody must look. `waiting`: known to be on its way; it becomes wrong if it does not arrive."""

    WRONG = "wrong"
    WAITING = "waiting"


class LinkState(StrEnum):
    """`not_checked`: nothing to compare, or no way to; the note says why."""

    EQUAL = "equal"
    WAITING = "waiting"
    DIFFERS = "differs"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """[start, end), full hours, as of `now`; of one account, or of all. `ask_stripe`: for what it has added up."""

    start: datetime
    end: datetime
    now: datetime
    account_id: str | None = None
    ask_stripe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure that two neighbours hold differently, with its cause in one word and in a sentence.

    `unit`: `calls`, `units` (of `meter`), `hours`, or a currency whose minor units the figures are.
    """

    link: Link
    severity: Severity
    account_id: str
    subscription_id: str | None = None
    meter: str | None = None
    start: datetime
    end: datetime
    unit: str
    expected: int
    found: int
    cause: str
    detail: str


@dataclass(slots=True, kw_only=True)
class Comparison:
    """All of one link. `checked`: how many figures were compared; sums are left out where units differ."""

    link: Link
    checked: int = 0
    checked_what: str
    expected: int | None = None
    found: int | None = None
    differences: list[Difference] = field(default_factory=list)
    note: str = ""
    is_checked: bool = True

    @property
    def state(self) -> LinkState:
        if any(one.severity is Severity.WRONG for one in self.differences):
            return LinkState.DIFFERS
        if not self.is_checked or not (self.checked or self.differences):
            return LinkState.NOT_CHECKED
        return LinkState.WAITING if self.differences else LinkState.EQUAL

    def count(self, severity: Severity) -> int:
        return sum(1 for one in self.differences if one.severity is severity)


def not_checked(link: Link, why: str, *, what: str = "figures") -> Comparison:
    return Comparison(link=link, checked_what=what, note=why, is_checked=False)


def worst(states: Sequence[LinkState]) -> LinkState:
    """Return the state of a whole run: one link that differs is enough; nothing checked is not `equal`."""
    for state in (LinkState.DIFFERS, LinkState.WAITING, LinkState.EQUAL):
        if state in states:
            return state
    return LinkState.NOT_CHECKED
