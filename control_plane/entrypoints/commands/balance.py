"""`km balance`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import TAKES_AMOUNTS, AsJson, print_fields, print_json, print_rows

app = typer.Typer(help="Balances: what accounts have to their credit.", no_args_is_help=True)
COLUMNS = ("created_at", "kind", "amount.text", "balance.text", "reason", "invoice_id", "author")
FIELDS = ("id", *COLUMNS)


@app.command("show")
def show(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Show an account's balances; its next invoices are paid from them first."""
    balances = get(f"/accounts/{account}/balance")["balances"]
    if as_json:
        print_json(balances)
        return
    print_rows([{**one, "balance": one["text"]} for one in balances], ("currency", "balance"))


@app.command("entries")
def entries(
    account: AccountArgument,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200,
    *,
    as_json: AsJson = False,
) -> None:
    """List what changed an account's balance, newest first."""
    print_rows(pages(f"/accounts/{account}/balance/entries", at_most=at_most), COLUMNS, as_json=as_json)


@app.command("adjust", context_settings=TAKES_AMOUNTS)
def adjust(
    account: AccountArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 5.00; below 0, like -5.00, takes away.")],
    reason: Annotated[str, typer.Option(help="Why: it is kept with the entry.")],
    key: Annotated[str | None, typer.Option(help="Names the adjustment: the same again counts once.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Add to an account's balance, or take away; never below nothing."""
    body = {"amount": amount, "reason": reason, "idempotency_key": key}
    print_fields(post(f"/accounts/{account}/balance/adjustments", body), FIELDS, as_json=as_json)
