"""The year as a page: what happened to whom and what was billed why, and the comparison. The same every time."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from devstack.year.calls import FAILED, SANDBOX
from devstack.year.model import YEAR, ZERO, Bill, Story, Use, figures
from devstack.year.reconcile import Check, exactly
from devstack.year.run import Year

TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
SIGNS = {"USD": "$", "EUR": "€", "JPY": "¥", "KWD": "KWD\N{NO-BREAK SPACE}"}
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

Prices of a month or year are paid in advance, requests when it is over. An invoice is final an hour after the end
of its period, and to be paid within 14 days; money comes in on the 6th and the 20th. Days are UTC. Why there
are invoices for the `start`, a `period`, a `change` and the end (`final`):
[Invoices](invoices.md#what-is-billed-when).

| what is sold | price | requests |
|---|---|---|
| Free | nothing | 1,000 a month, then refused |
| Starter | $49.00 or €45.00 a month; 14 days of trial | 50,000, then $0.0015 or €0.0014 each |
| Growth | $199.00 a month | 500,000, then $0.0006 each |
| Basic | $19.00 a month, from July $25.00 for whoever is moved | 10,000, then $0.003 each; from July 15,000 |
| Scale | $30.00 a month, and $100.00 once | $0.001 each of the first 100,000 of a month, $0.0005 each above; \
who changes to it in a month has those before counted in |
| Team | $60.00 a month | 60,000, then $0.002 each; who changes to it in a month has its part of them |
| Packs | ¥1,500 a month | ¥125 for every 1,000 begun |
| Wholesale | KWD\N{NO-BREAK SPACE}9.250 a month | KWD\N{NO-BREAK SPACE}0.0003 each up to 100,000; \
in a month with more, 0.00015 for all of them |
| Committed | $1,200.00 a year | $0.01 each, at least $5,000.00 a year |
| Prepaid | nothing | $0.01 each, from credits |
| an add-on | $20.00 a month | 100,000 more |
"""

EXPLAINED = """\
Each figure is the one expected. Where a place of the product says another one, the last column has the
difference. *Calls*: made, and found among stored events; by hour and by day those that a dispute took out are
missing. *Requests*: what may be billed, by our count, in hourly and daily figures and in the ledger of sealed
usage. *On bills*: those on lines of invoices; the rest was free. *Billed*: by hand, by the totals of invoices,
by their lines, and by what paid for them: credits, balance, credit notes and payments. *Paid back*: in money, by
credit notes and by refunds. Day, reason, lines, currency and each amount of every invoice are compared besides,
and credit notes, changes of status, and the plan by which gateways serve the customer."""


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
    rows += [(day, 0, f"| {_day(day)} | does not pay | | |") for day in story.unpaid]
    rows += [(moment, 2, f"| {_day(moment)} | is *{status}* | | |") for moment, status in story.statuses]
    apart = sorted(moment.date() for moment, _, _ in rows)
    rows += [(run[0][1].on, 3, _bills(run, story.currency)) for run in _runs(story.bills, apart)]
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


def _bills(run: Sequence[tuple[int, Bill]], currency: str) -> str:
    """Return the row of a bill, or of several that say the same."""
    (first, bill), (last, bill_last) = run[0], run[-1]
    lines = [f"{_money(line.amount, currency)} {line.why}" for line in bill.lines]
    for words, amount in (("discount", -bill.discount), ("tax", bill.tax)):
        if amount:
            lines.append(f"{_money(amount, currency)} {words}")
    total, how = f"**{_money(bill.total, currency)}**", _how(bill, currency)
    if first == last:
        return f"| {_day(bill.on)} | invoice {first} ({how}) | {'<br>'.join(lines)} | {total} |"
    days, numbers = f"{_day(bill.on)} to {_day(bill_last.on)}", f"invoices {first} to {last}"
    return f"| {days} | {numbers} ({how}) | each {'<br>'.join(lines)} | {len(run)} {TIMES} {total} |"


def _how(bill: Bill, currency: str) -> str:
    """Return why a bill was made, what paid for it besides money, and whether it is void."""
    said = [bill.reason]
    said += [
        f"{_money(amount, currency)} from {where}"
        for amount, where in ((bill.credits, "credits"), (bill.balance, "the balance"))
        if amount > 0
    ]
    if bill.balance < 0:
        said.append("added to the balance")
    if bill.credited:
        said.append(f"{_money(bill.credited, currency)} taken off by a credit note")
    return "; ".join([*said, *(["*void*"] if bill.end == "void" else [])])


def _months(stories: Sequence[Story]) -> str:
    """Return what was billed to whom in which month."""
    months = sorted({(bill.on.year, bill.on.month) for story in stories for bill in story.bills})
    names = [
        f"{datetime(year, month, 1, tzinfo=UTC):%b}{'' if year == YEAR else f' {year}'}" for year, month in months
    ]
    rows = []
    for story in stories:
        sums = [
            [bill.total for bill in story.bills if (bill.on.year, bill.on.month) == month and bill.end != "void"]
            for month in months
        ]
        cells = [_table_money(sum(totals, ZERO), story.currency) if totals else "" for totals in sums]
        rows.append(f"| {story.name} | {' | '.join(cells)} |")
    head = [f"| billed | {' | '.join(names)} |", f"|---|{'---:|' * len(months)}"]
    note = "Dollars, where nothing else is said; with tax. Void invoices are left out."
    return "\n".join([*head, *rows, "", note, ""])


def _comparison(year: Year) -> str:
    found = year.found
    currencies = {story.name: story.currency for story in year.stories}
    rows = [
        _row(name, checks, currencies[name], found.told_of(name)) for name, checks in _by_customer(found.checks)
    ]
    calls, invoices, checks = (len(of) for of in (year.played.calls, year.held.invoices, found.checks))
    verdict = f"**The sum of all differences is {exactly(found.difference)}**, over {checks} checks, "
    verdict += f"{calls:,} calls and {invoices} invoices."
    if found.ok:
        verdict += f" {len(year.played.lost)} calls came too late and were set aside, where they can be looked at."
        verdict += " Numbers of invoices and credit notes have no gap."
    else:
        verdict += f" {len(found.mismatches)} things are not as they should be:"
    words = ["", *(f"- {one.customer}: {one.words}" for one in found.mismatches)] if found.mismatches else []
    return "\n".join(
        [
            "## The comparison",
            "",
            EXPLAINED,
            "",
            "| customer | calls | requests | on bills | billed | paid | paid back | balance left | difference |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
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


def _row(name: str, checks: dict[str, Check], currency: str, difference: str) -> str:
    counted = (f"{checks[what].expected:,}" for what in ("calls made", "requests", "requests on bills"))
    amounts = (Decimal(checks[what].expected) for what in ("billed", "paid in money", "paid back", "balance"))
    money = (_table_money(amount, currency) for amount in amounts)
    return f"| {name} | {' | '.join(counted)} | {' | '.join(money)} | {difference} |"


def _money(amount: Decimal, currency: str) -> str:
    return f"{MINUS if amount < 0 else ''}{SIGNS[currency]}{figures(abs(amount), currency)}"


def _table_money(amount: Decimal, currency: str) -> str:
    """Return an amount for a column of which most are dollars: those without a sign."""
    return _money(amount, currency).removeprefix("$") if amount >= 0 else _money(amount, currency).replace("$", "")


def _day(moment: datetime) -> str:
    year = "" if moment.year == YEAR else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year}"
