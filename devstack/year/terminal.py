"""The year in the terminal: a row for each customer, and whatever differs."""

from decimal import Decimal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from devstack.year.model import figures
from devstack.year.reconcile import exactly
from devstack.year.run import Year

WIDE = 140
NONE = "0.00"


def print_year(console: Console, year: Year) -> None:
    """Print what was billed to whom, and how it compares."""
    console.print(_table(year, wide=console.width >= WIDE))
    for check in year.found.checks:
        if check.difference:
            found = ", ".join(f"{where} {value:,}" for where, value in check.found.items())
            console.print(Text(f"{check.customer}: {check.what} {check.expected:,}, but {found}", style="red"))
    for one in year.found.mismatches:
        console.print(Text(f"{one.customer}: {one.words}", style="red"))
    console.print(_verdict(year), highlight=False)


def _table(year: Year, *, wide: bool) -> Table:
    """Return a row for each customer; `wide`: with its story."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Customer", "Story") if wide else ("Customer",):
        table.add_column(name)
    for name in ("Calls", "Requests", "Invoices", "Billed", "Paid", "Difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for story in sorted(year.stories, key=lambda one: one.name):
        checks = {check.what: check for check in year.found.checks if check.customer == story.name}
        difference = year.found.told_of(story.name)
        account = year.played.account(story.name)
        table.add_row(
            story.name,
            *([story.about] if wide else []),
            f"{checks['calls made'].expected:,}",
            f"{checks['requests'].expected:,}",
            str(sum(invoice.account == account for invoice in year.held.invoices)),
            f"{figures(Decimal(checks['billed'].expected), story.currency)} {story.currency}",
            figures(Decimal(checks["paid in money"].expected), story.currency),
            Text(difference, style="green" if difference == NONE else "red"),
        )
    return table


def _verdict(year: Year) -> str:
    calls, invoices, checks = (len(of) for of in (year.played.calls, year.held.invoices, year.found.checks))
    said = f"{calls:,} calls, {invoices} invoices, {year.played.moments} moments, {checks} checks"
    if year.found.ok:
        return f"\n{said}: [bold green]the sum of all differences is {exactly(year.found.difference)}."
    wrong = (
        f"differences of {exactly(year.found.difference)}, "
        f"and {len(year.found.mismatches)} things that are not as expected"
    )
    return f"\n{said}: [bold red]{wrong}."
