"""`km billing-profile`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get, put
from control_plane.entrypoints.commands.output import AsJson, print_fields

app = typer.Typer(help="Billing profiles: whom invoices are addressed to.", no_args_is_help=True)
FIELDS = (
    "legal_name",
    "address_lines",
    "postal_code",
    "city",
    "region",
    "country",
    "tax_id",
    "invoice_email",
    "tax_treatment",
)
Text = str | None


@app.command("show")
def show(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Show an account's billing profile."""
    print_fields(get(f"/accounts/{account}/billing-profile"), FIELDS, as_json=as_json)


@app.command("set")
def set_(
    account: AccountArgument,
    *,
    legal_name: Annotated[Text, typer.Option(help="As invoices are to name it.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(metavar="LINE", help="A line of the address; repeatable.")
    ] = None,
    postal_code: Annotated[Text, typer.Option()] = None,
    city: Annotated[Text, typer.Option()] = None,
    region: Annotated[Text, typer.Option(help="State or province.")] = None,
    country: Annotated[Text, typer.Option(help="ISO 3166, like DE.")] = None,
    tax_id: Annotated[Text, typer.Option()] = None,
    invoice_email: Annotated[Text, typer.Option(help="Where invoices go.")] = None,
    tax_treatment: Annotated[Text, typer.Option(help="standard, exempt or reverse_charge.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change an account's billing profile; what is not named stays."""
    path = f"/accounts/{account}/billing-profile"
    given = {
        "legal_name": legal_name,
        "address_lines": address or None,
        "postal_code": postal_code,
        "city": city,
        "region": region,
        "country": country,
        "tax_id": tax_id,
        "invoice_email": invoice_email,
        "tax_treatment": tax_treatment,
    }
    body = {**get(path), **{name: value for name, value in given.items() if value is not None}}
    print_fields(put(path, body), FIELDS, as_json=as_json)
