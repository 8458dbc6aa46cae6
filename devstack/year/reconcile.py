"""The comparison: what was counted and reckoned by hand against what the product holds, customer by customer."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import zip_longest

from devstack.year.calls import Counted, count
from devstack.year.held import Held, HeldInvoice
from devstack.year.model import ZERO, Bill, Story
from devstack.year.play import Played

Figure = Decimal | int
NOTHING = Counted(0, 0)
CENT = Decimal("0.01")
ALL = "all"  # what is of no single customer
DAYS_TO_PAY = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a customer: what it should be, and what the product says in each place."""

    customer: str
    what: str
    expected: Figure
    found: Mapping[str, Figure]

    @property
    def difference(self) -> Decimal:
        return sum((abs(Decimal(one) - Decimal(self.expected)) for one in self.found.values()), ZERO)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A bill, a status or a number that is not as it should be, in words."""

    customer: str
    words: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """All checks, and what differs. `ok`: the sum of all differences is zero, and no bill is another one."""

    checks: Sequence[Check]
    mismatches: Sequence[Mismatch]

    @property
    def difference(self) -> Decimal:
        return sum((check.difference for check in self.checks), ZERO)

    @property
    def ok(self) -> bool:
        return not self.difference and not self.mismatches

    def told_of(self, customer: str) -> str:
        """Return the sum of a customer's differences; where it is zero and yet something is wrong, that it is."""
        difference = sum((one.difference for one in self.checks if one.customer == customer), ZERO)
        if not difference and any(one.customer == customer for one in self.mismatches):
            return "see below"
        return exactly(difference)


def exactly(difference: Decimal) -> str:
    """Return a difference with two digits after the point, or as many as it has."""
    rounded = difference.quantize(CENT)
    return f"{rounded if rounded == difference else difference:f}"


def reconcile(stories: Sequence[Story], played: Played, held: Held) -> Reconciliation:
    """Compare everything of every customer."""
    counted, taken_out = count(played.calls), count(played.voided)
    invoices: dict[str, list[HeldInvoice]] = defaultdict(list)
    for invoice in held.invoices:
        invoices[invoice.account].append(invoice)
    checks: list[Check] = []
    mismatches: list[Mismatch] = []
    for story in stories:
        account = played.account(story.name)
        calls, voided = (counts.get(account, NOTHING) for counts in (counted, taken_out))
        checks += _call_checks(story, account, calls, voided, held)
        checks += _request_checks(story, account, calls, invoices[account], held)
        checks += _money_checks(story, account, invoices[account], held)
        mismatches += _bill_mismatches(story, invoices[account])
        mismatches += _other_mismatches(story, account, held)
    mismatches += _whole_mismatches(played, held)
    return Reconciliation(checks, mismatches)


def _call_checks(story: Story, account: str, calls: Counted, voided: Counted, held: Held) -> list[Check]:
    counted = {source: held.figures[source].get(account, (0, 0))[0] for source in ("hourly", "daily")}
    return [
        Check(story.name, "calls made", calls.calls, {"events": held.events.get(account, 0)}),
        Check(story.name, "calls counted", calls.calls - voided.calls, counted),
    ]


def _request_checks(
    story: Story, account: str, calls: Counted, invoices: Sequence[HeldInvoice], held: Held
) -> list[Check]:
    """`requests`: billed ones, by our count of calls; on bills are those that no free plan or trial covers."""
    voided = sum(use.requests for use in story.usage if use.voided)
    billed = sum(use.requests for use in story.usage if not (use.free or use.lost or use.voided))
    requests = {source: held.figures[source].get(account, (0, 0))[1] for source in ("hourly", "daily", "ledger")}
    on_bills = sum(invoice.units for invoice in invoices if invoice.status != "void")
    return [
        Check(story.name, "requests", calls.requests - voided, requests),
        Check(story.name, "requests on bills", billed, {"invoices": on_bills}),
    ]


def _money_checks(story: Story, account: str, invoices: Sequence[HeldInvoice], held: Held) -> list[Check]:
    kept = [invoice for invoice in invoices if invoice.status != "void"]
    wanted = [bill for bill in story.bills if bill.end != "void"]
    total = sum((bill.total for bill in wanted), ZERO)
    settled = sum((one.credits + one.balance + one.credited + one.paid + one.left for one in kept), ZERO)
    return [
        Check(
            story.name,
            "billed",
            total,
            {
                "totals": sum((one.total for one in kept), ZERO),
                "lines": sum((_of_lines(one) for one in kept), ZERO),
                "what paid": settled,
            },
        ),
        Check(
            story.name,
            "paid in money",
            sum((bill.due - bill.credited for bill in wanted), ZERO),
            {"payments": sum((one.paid for one in kept), ZERO)},
        ),
        Check(
            story.name,
            "paid back",
            story.paid_back,
            {
                "credit notes": sum((one.to_outside for one in held.notes if one.account == account), ZERO),
                "payments": sum((one.paid_back for one in invoices), ZERO),
            },
        ),
        Check(story.name, "left to pay", ZERO, {"invoices": sum((one.left for one in kept), ZERO)}),
        Check(story.name, "balance", story.balance_at_end, {"account": held.balances[account]}),
        Check(story.name, "credits", ZERO, {"account": held.credits[account]}),
    ]


def _of_lines(invoice: HeldInvoice) -> Decimal:
    return sum((amount for _, amount in invoice.lines), ZERO) - invoice.discount + invoice.tax


def _bill_mismatches(story: Story, invoices: Sequence[HeldInvoice]) -> Iterable[Mismatch]:
    for bill, invoice in zip_longest(story.bills, invoices):
        if bill is None or invoice is None:
            there = f"no bill for {invoice.number}" if bill is None else f"no invoice on {bill.on:%d %B %Y}"
            yield Mismatch(story.name, f"there is {there}")
            continue
        wanted, found = _said(bill, story.currency), _found(invoice)
        for what, value in wanted.items():
            if value != found[what]:
                words = f"{invoice.number}, {bill.on:%d %B %Y}: {what} is {found[what]}, and should be {value}"
                yield Mismatch(story.name, words)


def _said(bill: Bill, currency: str) -> dict[str, object]:
    return {
        "day": bill.on.date(),
        "day to pay by": (bill.on + DAYS_TO_PAY).date(),
        "currency": currency,
        "reason": bill.reason,
        "lines": [str(line.amount) for line in bill.lines],
        "discount": bill.discount,
        "tax": bill.tax,
        "total": bill.total,
        "credits": bill.credits,
        "balance": bill.balance,
        "due": bill.due,
        "credited": bill.credited,
        "status": bill.end,
    }


def _found(invoice: HeldInvoice) -> dict[str, object]:
    return {
        "day": invoice.finalised_at.date(),
        "day to pay by": invoice.due_at and invoice.due_at.date(),
        "currency": invoice.currency,
        "reason": invoice.reason,
        "lines": [str(amount) for _, amount in invoice.lines],
        "discount": invoice.discount,
        "tax": invoice.tax,
        "total": invoice.total,
        "credits": invoice.credits,
        "balance": invoice.balance,
        "due": invoice.due,
        "credited": invoice.credited,
        "status": invoice.status,
    }


def _other_mismatches(story: Story, account: str, held: Held) -> Iterable[Mismatch]:
    if held.plans[account] != story.plan_at_end:
        words = f"gateways have the plan {held.plans[account]!r}, and should have {story.plan_at_end!r}"
        yield Mismatch(story.name, words)
    found = _days(held.statuses.get(account, ()))
    if found != _days(story.statuses):
        yield Mismatch(story.name, f"its status changed {found}, and should have {_days(story.statuses)}")
    notes = [str(one.total) for one in held.notes if one.account == account]
    wanted = [str(amount) for amount in story.notes]
    if notes != wanted:
        yield Mismatch(story.name, f"its credit notes are of {notes}, and should be of {wanted}")


def _days(changes: Iterable[tuple[datetime, str]]) -> list[str]:
    return [f"{moment:%d %B} to {status}" for moment, status in changes]


def _whole_mismatches(played: Played, held: Held) -> Iterable[Mismatch]:
    for series, what, numbers in (
        ("INV", "invoices", held.numbers),
        ("CN", "credit notes", [one.number for one in held.notes]),
    ):
        if list(numbers) != [f"{series}-{number:06}" for number in range(1, len(numbers) + 1)]:
            yield Mismatch(ALL, f"the numbers of {what} have a gap")
    if held.drafts:
        yield Mismatch(ALL, f"{held.drafts} drafts were left")
    if held.dead_letters != len(played.lost):
        words = f"{held.dead_letters} calls were set aside, and {len(played.lost)} came too late"
        yield Mismatch(ALL, words)
    known = {names["account"] for names in played.known.values()}
    found = {*held.events, *(account for figures in held.figures.values() for account in figures)}
    if found - known:
        yield Mismatch(ALL, f"there is usage of nobody: {sorted(found - known)}")
