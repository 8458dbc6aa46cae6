"""The year as a page: what happened to whom and what was billed why, and the comparison. The same every time."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from devstack.year.calls import FAILED, SANDBOX
from devstack.year.model import YEAR, Bill, Story, Use
from devstack.year.reconcile import Check
from devstack.year.run import Year

MINUS = "\N{MINUS SIGN}"
SIGNS = {"USD": "$", "EUR": "€"}
HEAD = """# A year of customers

<!-- written by `km year --page docs/scenario-year.md`; do not edit -->

{customers} customers, twelve months, from 1 January {year} on, played over the whole control plane: a clock
jumps from one due moment to the next, people's steps go through the REST API, calls come as signed usage lines
through the stream, and every worker does what is due at that moment. With each hour of use come {failed} calls
that the upstream failed and {sandbox} with a test key, and much of it is delivered twice; none of that may be
billed.

What each customer should be billed was reckoned by hand, line by line, in `devstack/year/stories`; calls are
counted by a counter that shares no code with the product. At the end everything is compared. `km year` does it
all again.

What is sold: Free (1,000 requests, then refused), Starter ($49.00 or €45.00 a month, 50,000 requests, $0.0015
or €0.0014 for each above), Growth ($199.00, 500,000, $0.0006), Committed ($1,200.00 a year, $0.01 a request, at
least $5,000.00 of them), Prepaid ($0.01 a request, from credits), and an add-on of 100,000 requests for $20.00
a month. Money comes in on the 6th and the 20th. Days are UTC.
"""

EXPLAINED = """Each figure is the one expected. Where a place of the product says another one, the last column
has the difference. *Calls*: made, and found among stored events; by hour and by day those that a dispute took
out are missing. *Requests*: what may be billed, by our count, in hourly and daily figures and in the ledger of
sealed usage. *On bills*: those on lines of invoices; the rest was free. *Billed*: by hand, by the totals of
invoices, by their lines, and by what paid for them: credits, balance and payments."""


def render_page(year: Year) -> str:
    """Return the page; of a year that does not reconcile, it says so."""
    parts = [
        HEAD.format(customers=len(year.stories), year=YEAR, failed=FAILED, sandbox=SANDBOX),
        _contents(year.stories),
        "## Month by month\n",
        *(_story(story) for story in sorted(year.stories, key=lambda one: one.name)),
        _comparison(year),
    ]
    return "\n".join(parts)


def _contents(stories: Sequence[Story]) -> str:
    rows = [
        f"| [{one.name}](#{one.name.lower()}) | {one.about} |" for one in sorted(stories, key=lambda s: s.name)
    ]
    return "\n".join(["| customer | |", "|---|---|", *rows, ""])


def _story(story: Story) -> str:
    events: list[tuple[datetime, int, str]] = []
    events += [(step.at, 0, f"| {_day(step.at)} | {step.words} | | |") for step in story.steps]
    events += [(use.arrives_at, 1, f"| {_day(use.arrives_at)} | {_used(use)} | | |") for use in story.usage]
    events += [(moment, 2, f"| {_day(moment)} | is *{status}* | | |") for moment, status in story.statuses]
    for number, bill in enumerate(story.bills, start=1):
        events.append((bill.on, 3, _bill(bill, number, SIGNS[story.currency])))
    rows = [row for _, _, row in sorted(events, key=lambda one: (one[0].date(), one[1], one[0]))]
    head = [f"### {story.name}", "", f"{story.name} {story.about}.", ""]
    return "\n".join([*head, "| day | what happened | billed | |", "|---|---|---|---:|", *rows, ""])


def _used(use: Use) -> str:
    words = use.words or f"{use.requests:,} requests"
    notes = [
        note
        for note, said in (
            ("not billed: free", use.free),
            ("too late to be counted", use.lost),
            ("taken out of the count later", use.voided),
        )
        if said
    ]
    return f"{words}{' (' + ', '.join(notes) + ')' if notes else ''}"


def _bill(bill: Bill, number: int, sign: str) -> str:
    lines = [f"{_money(line.amount, sign)} {line.why}" for line in bill.lines]
    for words, amount in (("discount", -bill.discount), ("VAT", bill.tax)):
        if amount:
            lines.append(f"{_money(amount, sign)} {words}")
    paid = [
        f"{_money(amount, sign)} from {where}"
        for amount, where in ((bill.credits, "credits"), (bill.balance, "the balance"))
        if amount > 0
    ]
    if bill.balance < 0:
        paid.append("added to the balance")
    total = f"**{_money(bill.total, sign)}**"
    after = f"; {', '.join(paid)}" if paid else ""
    void = "; *void*" if bill.end == "void" else ""
    return f"| {_day(bill.on)} | invoice {number} ({bill.reason}){after}{void} | {'<br>'.join(lines)} | {total} |"


def _comparison(year: Year) -> str:
    found = year.found
    rows = [_row(name, checks) for name, checks in _by_customer(found.checks)]
    calls, invoices, checks = (len(of) for of in (year.played.calls, year.held.invoices, found.checks))
    verdict = (
        f"**The sum of all differences is {found.difference}**, over {checks} checks, {calls:,} calls and "
        f"{invoices} invoices. {len(year.played.lost)} calls came "
        "too late and were set aside, where they can be looked at. Invoice numbers have no gap."
    )
    words = [f"- {one.customer}: {one.words}" for one in found.mismatches]
    return "\n".join(
        [
            "## The comparison",
            "",
            EXPLAINED,
            "",
            "| customer | calls | requests | on bills | billed | paid in money | balance left | difference |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
            verdict,
            *words,
            "",
        ]
    )


def _by_customer(checks: Sequence[Check]) -> Iterable[tuple[str, dict[str, Check]]]:
    names = sorted({check.customer for check in checks})
    return [(name, {one.what: one for one in checks if one.customer == name}) for name in names]


def _row(name: str, checks: dict[str, Check]) -> str:
    counted = (f"{checks[what].expected:,}" for what in ("calls made", "requests", "requests on bills"))
    money = (f"{checks[what].expected:,.2f}" for what in ("billed", "paid in money", "balance"))
    difference = sum((check.difference for check in checks.values()), Decimal(0))
    return f"| {name} | {' | '.join(counted)} | {' | '.join(money)} | {difference:.2f} |"


def _money(amount: Decimal, sign: str) -> str:
    return f"{MINUS if amount < 0 else ''}{sign}{abs(amount):,.2f}"


def _day(moment: datetime) -> str:
    year = "" if moment.year == YEAR else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year}"
