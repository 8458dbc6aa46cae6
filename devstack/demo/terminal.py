"""The report in the terminal."""

import json
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from devstack.demo.report import Check, InvoiceView, Purchase, Report, UsageRow
from devstack.demo.traffic import Refusal

STATUS_STYLES = {2: "green", 3: "cyan", 4: "yellow", 5: "red"}


def print_report(console: Console, report: Report) -> None:
    """Print usage, limits hit, invoice previews and the comparison."""
    for title, part in (
        ("Usage by endpoint and status", _usage(report.usage)),
        ("Limits hit and keys refused", _refusals(report)),
        ("Invoice previews", Group(*map(_invoice, report.invoices))),
        ("The client's own count against the product's figures", _checks(report.checks)),
    ):
        console.print()
        console.rule(f"[bold]{title}", align="left")
        console.print(part)
    if report.purchase is not None:
        console.print()
        console.rule("[bold]Bought through Stripe (simulated)", align="left")
        console.print(_purchase(report.purchase))
    for note in report.notes:
        console.print(Text(note, style="dim"))


def _usage(rows: tuple[UsageRow, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Account")
    table.add_column("Endpoint", overflow="fold")
    table.add_column("Status", justify="right")
    table.add_column("Outcome")
    table.add_column("Calls", justify="right")
    for account, group in groupby(rows, key=lambda row: row.account):
        for number, row in enumerate(group):
            table.add_row(
                account if number == 0 else "",
                row.endpoint,
                Text(str(row.status), style=STATUS_STYLES.get(row.status // 100, "")),
                row.outcome,
                f"{row.calls:,}",
            )
    return table


def _refusals(report: Report) -> RenderableType:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Caller", "Refused because", "Status"):
        table.add_column(name)
    table.add_column("Calls", justify="right")
    refused: dict[tuple[str, str, int], int] = {}
    for row in report.usage:
        if row.outcome != "served":
            key = (row.account, row.outcome, row.status)
            refused[key] = refused.get(key, 0) + row.calls
    for (account, outcome, status), calls in refused.items():
        table.add_row(account, outcome, str(status), f"{calls:,}")
    shown = [refusal for refusal in report.refusals if refusal.status == 429]  # noqa: PLR2004 - the HTTP status
    return Group(table, *(_refusal(refusal) for refusal in shown))


def _refusal(refusal: Refusal) -> Panel:
    head = "\n".join(f"{name}: {value}" for name, value in refusal.headers.items())
    body = Syntax(json.dumps(refusal.body, indent=2), "json", background_color="default", word_wrap=True)
    return Panel(
        Group(Text(head, style="cyan"), body),
        title=f"{refusal.request} → {refusal.status}",
        title_align="left",
        border_style="yellow",
    )


def _invoice(invoice: InvoiceView) -> Panel:
    table = Table(box=None, show_header=False, expand=True, pad_edge=False)
    table.add_column(ratio=3)
    table.add_column(ratio=3, style="dim")
    table.add_column(justify="right")
    for line in invoice.lines:
        table.add_row(line.description, line.formula, line.amount)
    table.add_row(Text("Total", style="bold"), "", Text(invoice.total, style="bold"))
    quota = "" if invoice.quota_units is None else f" of {invoice.quota_units:,}"
    return Panel(
        Group(Text(f"{invoice.billable_units:,}{quota} requests used · {invoice.period}", style="dim"), table),
        title=f"{invoice.account} · {invoice.plan}",
        title_align="left",
    )


def _checks(checks: tuple[Check, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Figure")
    table.add_column("Client", justify="right")
    table.add_column("Product")
    table.add_column("")
    for check in checks:
        product = ", ".join(f"{source} {value:,}" for source, value in check.product.items())
        verdict = Text("equal", style="green") if check.ok else Text("DIFFERS", style="bold red")
        table.add_row(check.name, f"{check.client:,}", product, verdict)
    return table


def _purchase(purchase: Purchase) -> RenderableType:
    told = Text(
        f"{purchase.account} paid at Stripe's checkout; its subscription began {purchase.began_seconds:.1f} s "
        f"later, {purchase.calls} calls were served, then it moved up a plan. Usage goes to Stripe hour by hour, "
        "as soon as an hour is sealed."
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Stripe's invoices")
    table.add_column("We said", justify="right")
    table.add_column("Stripe", justify="right")
    table.add_column("")
    for figure in purchase.figures:
        verdict = Text("equal", style="green") if figure.ok else Text("DIFFERS", style="bold red")
        table.add_row(figure.name, _dollars(figure.reckoned_minor), _dollars(figure.invoiced_minor), verdict)
    return Group(told, table)


def _dollars(minor: int) -> str:
    return f"${minor // 100:,}.{minor % 100:02}"
