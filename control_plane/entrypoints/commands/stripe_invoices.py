"""`km stripe invoices`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(
    no_args_is_help=True, help="Stripe's invoices: what they say, what we added, and whether that was expected."
)
COLUMNS = (
    "number",
    "id",
    "account_id",
    "status",
    "billing_reason",
    "total.text",
    "amount_due.text",
    "created_at",
    "hosted_url",
)
FIELDS = (
    "number",
    "id",
    "account_id",
    "subscription_id",
    "status",
    "billing_reason",
    "subtotal.text",
    "discount.text",
    "tax.text",
    "total.text",
    "from_balance.text",
    "amount_due.text",
    "amount_paid.text",
    "credited.text",
    "attempts",
    "next_attempt_at",
    "created_at",
    "finalizes_at",
    "finalised_at",
    "paid_at",
    "hosted_url",
    "pdf_url",
    "finalization_error",
)
LINES = ("kind", "description", "quantity", "amount.text", "discount.text", "start", "end")
ADJUSTMENTS = ("id", "cause", "way", "state", "amount.text", "description", "refusal")
NOTES = ("number", "id", "status", "amount.text", "memo", "created_at")
DISPUTES = ("id", "status", "reason", "amount.text", "evidence_due_at")
DIFFERENCES = ("what", "cause", "expected.text", "actual.text")
EXPECTED = ("at", "event", "subtotal.text", "tax.text", "total.text", "from_balance.text", "amount_due.text")
Invoice = Annotated[str, typer.Argument(metavar="INVOICE", help="Stripe's id or number.")]


@app.command("list")
def list_invoices(
    *,
    account: Annotated[str | None, typer.Option(help="Of one account.")] = None,
    subscription: Annotated[str | None, typer.Option(help="Of one subscription of ours.")] = None,
    status: Annotated[str | None, typer.Option(help="draft, open, paid, void, uncollectible or deleted.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List Stripe's invoices, newest first, with where the customer sees them."""
    found = pages(
        "/stripe/invoices", at_most=at_most, account_id=account, subscription_id=subscription, status=status
    )
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(invoice: Invoice, *, as_json: AsJson = False) -> None:
    """Show an invoice: its lines, what we added, credit notes, disputes, and whether it is as expected."""
    found = get(f"/stripe/invoices/{invoice}")
    if as_json:
        print_json(found)
        return
    print_fields(found, FIELDS, as_json=False)
    _table("Lines", found["lines"], LINES)
    _table("Adjustments", found["adjustments"], ADJUSTMENTS)
    _table("Credit notes", found["credit_notes"], NOTES)
    _table("Disputes", found["disputes"], DISPUTES)
    draft, check = found["draft"], found["check"]
    if draft is not None:
        typer.echo(
            f"\nBefore it was final: {draft['state']}" + (f", {draft['reason']}" if draft["reason"] else "")
        )
    if check is None:
        typer.echo("\nNot compared with what was expected yet.")
    elif check["agrees"]:
        typer.echo(f"\nAs expected: {check['actual']['text']} before tax.")
    else:
        _table("Otherwise than expected", check["differences"], DIFFERENCES)


@app.command("expected")
def expected(
    subscription: Annotated[str, typer.Argument(metavar="SUBSCRIPTION")],
    *,
    event: Annotated[str, typer.Option(help="period_end, or cancel_now.")] = "period_end",
    as_json: AsJson = False,
) -> None:
    """Show what Stripe's next invoice of a subscription will say, by our reckoning."""
    found = get(f"/subscriptions/{subscription}/expected-invoice", event=event)
    if as_json:
        print_json(found)
        return
    _table("Lines", found["lines"], (*LINES, "cause"))
    print_fields(found, EXPECTED, as_json=False)
    if found["unknown"]:
        typer.echo("Stripe adds tax, which nobody else can reckon.")


@app.command("credit")
def credit(
    invoice: Invoice,
    amount_minor: Annotated[int, typer.Argument(min=1, help="In minor units (cents), with tax.")],
    *,
    reason: Annotated[str, typer.Option(help="dispute, or goodwill.")] = "goodwill",
    note: Annotated[str, typer.Option(help="The customer reads it.")],
    as_json: AsJson = False,
) -> None:
    """Give something back of a final invoice by a credit note at Stripe."""
    body = {"amount_minor": amount_minor, "reason": reason, "note": note}
    made = post(f"/stripe/invoices/{invoice}/credit-notes", body)
    print_fields(made, ADJUSTMENTS, as_json=as_json)


def _table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if rows:
        typer.echo(f"\n{title}")
        print_rows(rows, columns, as_json=False)
