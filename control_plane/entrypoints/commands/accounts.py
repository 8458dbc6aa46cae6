"""`km accounts`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import get, pages, patch, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_rows

app = typer.Typer(help="Accounts: who pays.", no_args_is_help=True)
FIELDS = ("id", "name", "email", "status", "currency", "time_zone", "external_id", "created_at")
COLUMNS = ("id", "name", "status", "currency", "created_at")
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")]


@app.command("create")
def create(
    name: str,
    *,
    email: Annotated[str | None, typer.Option(help="Where to reach them.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code; USD if left out.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="IANA name; UTC if left out.")] = None,
    external_id: Annotated[str | None, typer.Option(help="What another system calls it.")] = None,
    referral_code: Annotated[
        str | None, typer.Option(metavar="CODE", help="Of the account that brought it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an account."""
    body = {"name": name, "email": email, "currency": currency, "time_zone": time_zone}
    body["external_id"] = external_id
    body["referral_code"] = referral_code
    print_fields(post("/accounts", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(
    search: Annotated[str | None, typer.Option(help="Part of a name or an email, or an id.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200,
    *,
    as_json: AsJson = False,
) -> None:
    """List accounts, newest first."""
    print_rows(pages("/accounts", at_most=at_most, search=search), COLUMNS, as_json=as_json)


@app.command("show")
def show(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Show one account."""
    print_fields(get(f"/accounts/{account}"), FIELDS, as_json=as_json)


@app.command("rename")
def rename(account: AccountArgument, name: str, *, as_json: AsJson = False) -> None:
    """Give an account another name."""
    print_fields(patch(f"/accounts/{account}", {"name": name}), FIELDS, as_json=as_json)


@app.command("suspend")
def suspend(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Refuse all its calls, from the next one on."""
    print_fields(post(f"/accounts/{account}/suspend"), FIELDS, as_json=as_json)


@app.command("resume")
def resume(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Let it call again."""
    print_fields(post(f"/accounts/{account}/resume"), FIELDS, as_json=as_json)
