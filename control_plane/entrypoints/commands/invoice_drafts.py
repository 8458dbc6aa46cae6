"""`km invoices`: drafts made by hand."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import delete, post
from control_plane.entrypoints.commands.invoice_reading import InvoiceArgument, print_invoice
from control_plane.entrypoints.commands.output import AsJson

app = typer.Typer()
Lines = Annotated[
    list[str],
    typer.Option(
        "--line", metavar="TEXT=AMOUNT", help="A line, like 'Support=120.00' or 'Hours=3x80'; repeatable."
    ),
]


@app.command("draft")
def draft(
    account: AccountArgument,
    line: Lines = [],  # noqa: B006 - typer's way to say that none is given
    note: Annotated[str, typer.Option(help="Stands on the invoice.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Make a draft by hand, in the account's currency. Nobody owes it until it is made final."""
    body = {"account_id": account, "lines": [_line(text) for text in line], "note": note}
    print_invoice(post("/invoices", body), as_json=as_json)


@app.command("add-line")
def add_line(
    invoice: InvoiceArgument,
    line: Annotated[
        list[str], typer.Argument(metavar="TEXT=AMOUNT", help="Like 'Support=120.00' or 'Hours=3x80'.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Add lines to a draft made by hand."""
    print_invoice(post(f"/invoices/{invoice}/lines", {"lines": [_line(text) for text in line]}), as_json=as_json)


@app.command("remove-line")
def remove_line(
    invoice: InvoiceArgument,
    position: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The line's number.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Take a line off a draft made by hand."""
    print_invoice(delete(f"/invoices/{invoice}/lines/{position}"), as_json=as_json)


@app.command("discard")
def discard(invoice: InvoiceArgument) -> None:
    """Delete a draft made by hand."""
    delete(f"/invoices/{invoice}")
    typer.echo(f"{invoice} discarded")


@app.command("finalise")
def finalise(invoice: InvoiceArgument, *, as_json: AsJson = False) -> None:
    """Make a draft by hand final: it gets its number, and never changes again."""
    print_invoice(post(f"/invoices/{invoice}/finalise"), as_json=as_json)


def _line(text: str) -> dict[str, Any]:
    """Return a line for `Support=120.00` or `Hours=3x80`."""
    description, equals, amount = text.rpartition("=")
    quantity, times, unit_amount = amount.partition("x")
    if not (equals and description):
        raise typer.BadParameter(f"{text}: use TEXT=AMOUNT, like 'Support=120.00' or 'Hours=3x80'")
    if not times:
        return {"description": description, "unit_amount": amount}
    if not (quantity.isascii() and quantity.isdecimal()):
        raise typer.BadParameter(f"{text}: before the x stands a whole number")
    return {"description": description, "quantity": int(quantity), "unit_amount": unit_amount}
