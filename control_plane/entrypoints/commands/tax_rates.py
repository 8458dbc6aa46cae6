"""`km tax-rates`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_rows

app = typer.Typer(help="Tax rates: what is added to net prices.", no_args_is_help=True)
FIELDS = ("id", "country", "region", "name", "percent", "scope", "valid_from", "valid_until")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As invoices call it, such as VAT.")],
    percent: Annotated[str, typer.Argument(metavar="PERCENT", help="Such as 19.")],
    *,
    country: Annotated[
        str | None,
        typer.Option(metavar="ISO", help="Of the buyer; left out: for accounts of which no country is known."),
    ] = None,
    region: Annotated[str, typer.Option(help="Of the country, in place of all its rates.")] = "",
    scope: Annotated[str, typer.Option(help="all, fixed or usage.")] = "all",
    valid_from: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Now if left out.")] = None,
    valid_until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="For ever if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a tax."""
    body = {
        "name": name,
        "percent": percent,
        "country": country,
        "region": region,
        "scope": scope,
        "valid_from": valid_from,
        "valid_until": valid_until,
    }
    print_fields(post("/tax-rates", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(
    *,
    country: Annotated[str | None, typer.Option(metavar="ISO", help="Only of this country.")] = None,
    valid_at: Annotated[str | None, typer.Option(metavar="TIME", help="Only those valid then.")] = None,
    at_most: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List tax rates by country and region."""
    found = pages("/tax-rates", at_most=at_most, country=country, valid_at=valid_at)
    print_rows(found, FIELDS, as_json=as_json)


@app.command("end")
def end(
    rate: Annotated[str, typer.Argument(metavar="RATE", help="The tax rate's id.")],
    *,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Now if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let a rate end; final invoices keep it."""
    print_fields(post(f"/tax-rates/{rate}/end", {"at": at}), FIELDS, as_json=as_json)
