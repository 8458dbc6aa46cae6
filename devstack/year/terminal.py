"""The year in the terminal: a row for each customer, and whatever differs."""

from decimal import Decimal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from devstack.year.run import Year

WIDE = 140


def print_year(console: Console, year: Year) -> None:
    """Print what was billed to whom, and how it compares."""
    console.print(_table(year, wide=console.width >= WIDE))
    for check in year.found.checks:
        if check.difference:
            found = ", ".join(f"{where} {value:,}" for where, value in check.found.items())
            console.print(f"[red]{check.customer}: {check.what} {check.expected:,}, but {found}", highlight=False)
    for one in year.found.mismatches:
        console.print(f"[red]{one.customer}: {one.words}", highlight=False)
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
        difference = sum((check.difference for check in checks.values()), Decimal(0))
        account = year.played.account(story.name)
        table.add_row(
            story.name,
            *([story.about] if wide else []),
            f"{checks['calls made'].expected:,}",
            f"{checks['requests'].expected:,}",
            str(sum(invoice.account == account for invoice in year.held.invoices)),
            f"{checks['billed'].expected:,.2f} {story.currency}",
            f"{checks['paid in money'].expected:,.2f}",
            Text(f"{difference:.2f}", style="red" if difference else "green"),
        )
    return table


def _verdict(year: Year) -> str:
    calls, invoices, checks = (len(of) for of in (year.played.calls, year.held.invoices, year.found.checks))
    said = f"{calls:,} calls, {invoices} invoices, {year.played.moments} moments, {checks} checks"
    if year.found.ok:
        return f"\n{said}: [bold green]the sum of all differences is {year.found.difference}."
    wrong = (
        f"differences of {year.found.difference}, and {len(year.found.mismatches)} things that are not as expected"
    )
    return f"\n{said}: [bold red]{wrong}."
