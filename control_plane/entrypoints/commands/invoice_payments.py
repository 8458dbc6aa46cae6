"""`km invoices`: what happens to final invoices."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import pages, post
from control_plane.entrypoints.commands.invoice_reading import AtMost, InvoiceArgument, print_invoice
from control_plane.entrypoints.commands.output import TAKES_AMOUNTS, AsJson, print_fields, print_rows

app = typer.Typer()
NOTE_COLUMNS = ("id", "number", "invoice_id", "reason", "total.text", "created_at")
NOTE_FIELDS = (
    *NOTE_COLUMNS[:4],
    "lowers_billed",
    "total.text",
    "to_due.text",
    "to_balance.text",
    "to_outside.text",
    "note",
    "created_at",
)
Why = Annotated[str, typer.Option("--reason", help="Why: it is kept in the audit log.")]
PaidOn = Annotated[str | None, typer.Option("--date", metavar="DATE", help="Like 2026-11-23; today if left out.")]
Method = Annotated[str, typer.Option(help="How, like 'bank transfer'.")]


@app.command("pay")
def pay(
    invoice: InvoiceArgument,
    *,
    reference: Annotated[str, typer.Option(help="Names the payment: the same again counts once.")],
    amount: Annotated[str | None, typer.Option(help="Like 49.00; all that is left if left out.")] = None,
    paid_on: PaidOn = None,
    method: Method = "",
    surplus_to_balance: Annotated[
        bool, typer.Option("--surplus-to-balance", help="What is too much goes to the account's balance.")
    ] = False,
    from_balance: Annotated[
        bool, typer.Option("--from-balance", help="No money came in: take it from the account's balance.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Note that money came in, all of it or a part; or pay from the account's balance."""
    if from_balance:
        if paid_on or method or surplus_to_balance:
            raise typer.BadParameter("goes with --amount and --reference alone", param_hint="--from-balance")
        taken = {"amount": amount, "reference": reference}
        print_invoice(post(f"/invoices/{invoice}/pay-from-balance", taken), as_json=as_json)
        return
    body = {
        "amount": amount,
        "paid_on": paid_on,
        "reference": reference,
        "method": method,
        "surplus_to_balance": surplus_to_balance,
    }
    print_invoice(post(f"/invoices/{invoice}/pay", body), as_json=as_json)


@app.command("refund", context_settings=TAKES_AMOUNTS)
def refund(
    invoice: InvoiceArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 49.00.")],
    reference: Annotated[str, typer.Option(help="Names the refund: the same again counts once.")],
    paid_on: PaidOn = None,
    method: Method = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Note that money was paid back, as a credit note said it would be."""
    body = {"amount": amount, "paid_on": paid_on, "reference": reference, "method": method}
    print_invoice(post(f"/invoices/{invoice}/refunds", body), as_json=as_json)


@app.command("void")
def void(invoice: InvoiceArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Make an open invoice void; what is still due of it is billed again. To waive it: km invoices credit."""
    print_invoice(post(f"/invoices/{invoice}/void", {"reason": reason}), as_json=as_json)


@app.command("uncollectible")
def uncollectible(invoice: InvoiceArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Say that nobody expects the money of an open invoice any more; it can still be paid."""
    print_invoice(post(f"/invoices/{invoice}/uncollectible", {"reason": reason}), as_json=as_json)


@app.command("credit")
def credit(
    invoice: InvoiceArgument,
    *,
    reason: Annotated[str, typer.Option(help="correction, dispute or goodwill.")],
    key: Annotated[str, typer.Option(help="Names the credit note: the same again makes no other.")],
    amount: Annotated[
        str | None, typer.Option(help="With tax; all that is left if neither this nor --line.")
    ] = None,
    line: Annotated[
        list[str], typer.Option(metavar="NUMBER[=AMOUNT]", help="A line, or a part of it before tax; repeatable.")
    ] = [],  # noqa: B006 - typer's way to say that none is given
    note: Annotated[str, typer.Option(help="Stands on the credit note.")] = "",
    dispute: Annotated[str | None, typer.Option(metavar="ID", help="With the reason dispute.")] = None,
    pay_out: Annotated[
        bool, typer.Option("--pay-out", help="What was paid in money is paid back, instead of to the balance.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take back some or all of a final invoice by a credit note, with its share of discount and tax."""
    body = {
        "reason": reason,
        "note": note,
        "lines": [_credited(text) for text in line],
        "amount": amount,
        "dispute_id": dispute,
        "surplus": "outside" if pay_out else "balance",
        "idempotency_key": key,
    }
    print_fields(post(f"/invoices/{invoice}/credit-notes", body), NOTE_FIELDS, as_json=as_json)


@app.command("credit-notes")
def credit_notes(
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only of this account.")] = None,
    at_most: AtMost = 200,
    *,
    as_json: AsJson = False,
) -> None:
    """List credit notes, newest first."""
    print_rows(pages("/credit-notes", at_most=at_most, account_id=account), NOTE_COLUMNS, as_json=as_json)


def _credited(text: str) -> dict[str, Any]:
    """Return a line to be credited for `2` or `2=10.00`."""
    position, equals, amount = text.partition("=")
    if not (position.isascii() and position.isdecimal()):
        raise typer.BadParameter(f"--line {text}: use the line's number, or NUMBER=AMOUNT")
    return {"position": int(position), **({"amount": amount} if equals else {})}
