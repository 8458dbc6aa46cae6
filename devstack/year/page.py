"""The year as a page: what happened to whom and what was billed why, and the comparison. The same every time."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from devstack.year.calls import FAILED, SANDBOX
from devstack.year.model import YEAR, ZERO, Bill, Story, Use
from devstack.year.reconcile import Check
from devstack.year.run import Year

TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
SIGNS = {"USD": "$", "EUR": "€"}
HEAD = """# A year of customers

<!-- written by `km year --page docs/scenario-year.md`; do not edit -->

{customers} customers, twelve months, from 1 January {year} on, played over the whole control plane: a clock
jumps from one due moment to the next, people's steps go through the REST API, calls come as signed usage lines
through the stream, and the workers of usage, subscriptions, billing and gateways' records do what is due. With
each hour of use come {failed} calls that the upstream failed and {sandbox} with a test key, and much of it is
delivered twice; none of that may be billed.

What each customer should be billed was reckoned by hand, line by line, in `devstack/year/stories`; calls are
counted by a counter that shares no code with the product. At the end everything is compared. `km year` does it
all again.

What is sold: Free (1,000 requests, then refused), Starter ($49.00 or €45.00 a month, 50,000 requests, $0.0015
or €0.0014 for each above), Growth ($199.00, 500,000, $0.0006), Committed ($1,200.00 a year, $0.01 a request, at
least $5,000.00 of them), Prepaid ($0.01 a request, from credits), and an add-on of 100,000 requests for $20.00
a month; Scale and Team, whose quotas change otherwise; Basic, of which there is a new version in July. Money
comes in on the 6th and the 20th. Days are UTC.
"""

EXPLAINED = """\
Each figure is the one expected. Where a place of the product says another one, the last column has the
difference. *Calls*: made, and found among stored events; by hour and by day those that a dispute took out are
missing. *Requests*: what may be billed, by our count, in hourly and daily figures and in the ledger of sealed
usage. *On bills*: those on lines of invoices; the rest was free. *Billed*: by hand, by the totals of invoices,
by their lines, and by what paid for them: credits, balance and payments."""


def render_page(year: Year) -> str:
    """Return the page; of a year that does not reconcile, it says so."""
    stories = sorted(year.stories, key=lambda one: one.name)
    parts = [
        HEAD.format(customers=len(stories), year=YEAR, failed=FAILED, sandbox=SANDBOX),
        _contents(stories),
        "## Month by month\n",
        _months(stories),
        "## Customer by customer\n",
        *(_story(story) for story in stories),
        _comparison(year),
    ]
    return "\n".join(parts)


def _contents(stories: Sequence[Story]) -> str:
    rows = [
        f"| [{one.name}](#{one.name.lower()}) | {one.about} |" for one in sorted(stories, key=lambda s: s.name)
    ]
    return "\n".join(["| customer | |", "|---|---|", *rows, ""])


def _story(story: Story) -> str:
    rows: list[tuple[datetime, int, str]] = []
    rows += [(step.at, 0, f"| {_day(step.at)} | {step.words} | | |") for step in story.steps]
    rows += [(use.arrives_at, 1, f"| {_day(use.arrives_at)} | {_used(use)} | | |") for use in story.usage]
    rows += [(moment, 2, f"| {_day(moment)} | is *{status}* | | |") for moment, status in story.statuses]
    apart = sorted(moment.date() for moment, _, _ in rows)
    rows += [(run[0][1].on, 3, _bills(run, SIGNS[story.currency])) for run in _runs(story.bills, apart)]
    ordered = [row for _, _, row in sorted(rows, key=lambda one: (one[0].date(), one[1], one[0]))]
    head = [f"### {story.name}", "", f"{story.name} {story.about}.", ""]
    return "\n".join([*head, "| day | what happened | billed | |", "|---|---|---|---:|", *ordered, ""])


def _runs(bills: Sequence[Bill], apart: Sequence[date]) -> list[list[tuple[int, Bill]]]:
    """Return bills with their numbers, those together that say the same with nothing happening in between."""
    runs: list[list[tuple[int, Bill]]] = []
    for number, bill in enumerate(bills, start=1):
        last = runs[-1][-1][1] if runs else None
        same = last is not None and replace(last, on=bill.on) == bill
        if same and last is not None and not any(last.on.date() < day <= bill.on.date() for day in apart):
            runs[-1].append((number, bill))
        else:
            runs.append([(number, bill)])
    return runs


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


def _bills(run: Sequence[tuple[int, Bill]], sign: str) -> str:
    """Return the row of a bill, or of several that say the same."""
    (first, bill), (last, bill_last) = run[0], run[-1]
    lines = [f"{_money(line.amount, sign)} {line.why}" for line in bill.lines]
    for words, amount in (("discount", -bill.discount), ("VAT", bill.tax)):
        if amount:
            lines.append(f"{_money(amount, sign)} {words}")
    total = f"**{_money(bill.total, sign)}**"
    if first == last:
        return f"| {_day(bill.on)} | invoice {first} ({_how(bill, sign)}) | {'<br>'.join(lines)} | {total} |"
    days, numbers = f"{_day(bill.on)} to {_day(bill_last.on)}", f"invoices {first} to {last}"
    return f"| {days} | {numbers} ({_how(bill, sign)}) | each {'<br>'.join(lines)} | {len(run)} {TIMES} {total} |"


def _how(bill: Bill, sign: str) -> str:
    """Return why a bill was made, what paid for it besides money, and whether it is void."""
    said = [bill.reason]
    said += [
        f"{_money(amount, sign)} from {where}"
        for amount, where in ((bill.credits, "credits"), (bill.balance, "the balance"))
        if amount > 0
    ]
    if bill.balance < 0:
        said.append("added to the balance")
    if bill.credited:
        said.append(f"{_money(bill.credited, sign)} taken off by a credit note")
    return "; ".join([*said, *(["*void*"] if bill.end == "void" else [])])


def _months(stories: Sequence[Story]) -> str:
    """Return what was billed to whom in which month."""
    months = sorted({(bill.on.year, bill.on.month) for story in stories for bill in story.bills})
    names = [f"{datetime(year, month, 1, tzinfo=UTC):%b}" for year, month in months]
    rows = []
    for story in stories:
        sums = [
            [bill.total for bill in story.bills if (bill.on.year, bill.on.month) == month and bill.end != "void"]
            for month in months
        ]
        cells = [f"{sum(totals, ZERO):,.2f}" if totals else "" for totals in sums]
        rows.append(f"| {story.name} | {' | '.join(cells)} |")
    head = [f"| billed | {' | '.join(names)} |", f"|---|{'---:|' * len(months)}"]
    return "\n".join([*head, *rows, "", "Dollars; Pia's are euros with VAT. Void invoices are left out.", ""])


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
    difference = sum((check.difference for check in checks.values()), ZERO)
    return f"| {name} | {' | '.join(counted)} | {' | '.join(money)} | {difference:.2f} |"


def _money(amount: Decimal, sign: str) -> str:
    return f"{MINUS if amount < 0 else ''}{sign}{abs(amount):,.2f}"


def _day(moment: datetime) -> str:
    year = "" if moment.year == YEAR else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year}"
