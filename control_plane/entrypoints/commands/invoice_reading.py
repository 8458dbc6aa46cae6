"""`km invoices`: lists, details, documents."""

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import download, fail, get, pages
from control_plane.entrypoints.commands.invoice_lines import Explain, print_lines
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer()
COLUMNS = ("id", "number", "account_id", "status", "reason", "total.text", "left.text", "due_at", "finalised_at")
FIELDS = (
    "id",
    "number",
    "account_id",
    "subscription_id",
    "status",
    "overdue",
    "reason",
    "period.start",
    "period.end",
    "finalise_at",
    "finalised_at",
    "due_at",
    "paid_at",
    "voided_at",
    "credit_notes",
)
PAYMENT_COLUMNS = ("paid_on", "kind", "amount.text", "reference", "method")


def _id_of(context: typer.Context, invoice: str) -> str:
    """Return an invoice's id; what is none is taken for the number that stands on it."""
    if context.resilient_parsing or invoice.startswith(("inv_", "cn_")):
        return invoice
    found = get("/invoices", number=invoice)["items"]
    return str(found[0]["id"]) if found else fail(f"There is no invoice {invoice}.")


InvoiceArgument = Annotated[
    str, typer.Argument(metavar="INVOICE", help="The invoice's id or number.", callback=_id_of)
]
AtMost = Annotated[int, typer.Option(min=1, help="How many at most.")]


@app.command("list")
def list_(
    *,
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only of this account.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only those: draft, open, paid, void or uncollectible.")
    ] = None,
    number: Annotated[str | None, typer.Option(help="The one with that number.")] = None,
    period_from: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Whose periods begin then or later.")
    ] = None,
    period_until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Whose periods begin before.")
    ] = None,
    at_most: AtMost = 200,
    as_json: AsJson = False,
) -> None:
    """List invoices, drafts too, newest first."""
    found = pages(
        "/invoices",
        at_most=at_most,
        account_id=account,
        status=status,
        number=number,
        period_from=period_from,
        period_until=period_until,
    )
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(invoice: InvoiceArgument, *, explain: Explain = False, as_json: AsJson = False) -> None:
    """Show an invoice: its lines, what they come to, and what became of it."""
    print_invoice(get(f"/invoices/{invoice}"), explain=explain, as_json=as_json)


@app.command("pdf")
def pdf(
    invoice: Annotated[
        str,
        typer.Argument(metavar="ID", help="An invoice's id or number, or a credit note's id.", callback=_id_of),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", "-o", metavar="FILE", help="Where to; ID.pdf if left out.")
    ] = None,
    *,
    html: Annotated[bool, typer.Option("--html", help="A page instead of a PDF.")] = False,
) -> None:
    """Write an invoice or a credit note to a file."""
    kind = "html" if html else "pdf"
    target = to or Path(f"{invoice}.{kind}")
    of = "credit-notes" if invoice.startswith("cn_") else "invoices"
    download(f"/{of}/{invoice}.{kind}", target)
    typer.echo(f"{target}: {target.stat().st_size:,} bytes")


def print_invoice(invoice: dict[str, Any], *, as_json: bool, explain: bool = False) -> None:
    """Print an invoice's fields, its lines with their sums, and its payments."""
    if as_json:
        print_json(invoice)
        return
    print_fields(invoice, [field for field in FIELDS if _said(invoice, field)])
    typer.echo()
    print_lines(invoice["lines"], _sums(invoice), explain=explain, of_periods=_is_of_many_periods(invoice))
    if invoice["payments"]:
        typer.echo()
        print_rows(invoice["payments"], PAYMENT_COLUMNS)


def _said(invoice: dict[str, Any], field: str) -> bool:
    if field.startswith("period.") and invoice["subscription_id"] is None:
        return False
    value: Any = invoice
    for part in field.split("."):
        value = value[part]
    return value not in (None, [], False)


def _is_of_many_periods(invoice: dict[str, Any]) -> bool:
    """Say whether a line is of another billing period than what stands above the lines."""
    return any(
        line["period"] != invoice["period"] for line in invoice["lines"] if line["subscription_id"] is not None
    )


def _sums(invoice: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the sums as rows below the lines; those that are nothing are left out."""
    rows = [("Subtotal", invoice["subtotal"])] if invoice["discounts"] or invoice["taxes"] else []
    rows += [(f"less {one['description']}", one["amount"]) for one in invoice["discounts"]]
    rows += [(f"{one['name']} {one['percent']} %", one["amount"]) for one in invoice["taxes"]]
    rows.append(("Total", invoice["total"]))
    taken_off = {
        "less prepaid credits": "credits_applied",
        "less account balance": "balance_applied",
        "less paid": "amount_paid",
        "less credit notes": "credited",
    }
    rows += [(label, invoice[name]) for label, name in taken_off.items() if invoice[name]["amount_minor"]]
    if invoice["status"] != "void":
        rows.append(("Left to pay", invoice["left"]))
    return [(label, "", money["text"]) for label, money in rows]
