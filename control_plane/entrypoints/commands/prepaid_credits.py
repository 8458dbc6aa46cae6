"""`km credits`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import TAKES_AMOUNTS, AsJson, print_fields, print_rows

app = typer.Typer(help="Prepaid credits: what accounts have paid ahead, or were given.", no_args_is_help=True)
BALANCE_COLUMNS = ("currency", "available.text", "undrawn.text", "reserved.text", "later.text")
GRANT_COLUMNS = (
    "id",
    "kind",
    "remaining.text",
    "amount.text",
    "priority",
    "starts_at",
    "expires_at",
    "api_product",
    "reason",
    "revoked_at",
)
GRANT_FIELDS = ("id", "account_id", *GRANT_COLUMNS[1:], "reference", "author")
ENTRY_COLUMNS = ("at", "kind", "amount.text", "remaining.text", "grant_id", "used_for", "author")
RESERVATION_COLUMNS = ("id", "status", "held.text", "settled.text", "reference", "expires_at", "ended_at")
RESERVATION_FIELDS = ("id", "account_id", *RESERVATION_COLUMNS[1:], "api_product", "author")
SALE_FIELDS = ("invoice_id", "number", "status", "total.text", "due.text", "due_at")
AmountArgument = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the account's currency, like 250.00.")]
GrantArgument = Annotated[str, typer.Argument(metavar="GRANT", help="The credit grant's id.")]
ReservationArgument = Annotated[str, typer.Argument(metavar="RESERVATION", help="The reservation's id.")]
AtMost = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
Priority = Annotated[int, typer.Option(min=0, max=1000, help="Lower ones are used first.")]
Expires = Annotated[str | None, typer.Option(metavar="TIME", help="Not usable from then on; never, if left out.")]
Product = Annotated[str | None, typer.Option("--product", metavar="CODE", help="Only for this API product.")]


@app.command("balance")
def balance(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Show what can be used now, what known usage will draw of it, what is held, and what begins later."""
    print_rows(get(f"/accounts/{account}/credits")["items"], BALANCE_COLUMNS, as_json=as_json)


@app.command("grant", context_settings=TAKES_AMOUNTS)
def grant(
    account: AccountArgument,
    amount: AmountArgument,
    *,
    paid: Annotated[bool, typer.Option("--paid", help="The account paid for it; else it is promotional.")] = False,
    priority: Priority = 100,
    starts_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Usable from then on; now if left out.")
    ] = None,
    expires_at: Expires = None,
    product: Product = None,
    reason: Annotated[str, typer.Option(help="Shown beside it.")] = "",
    reference: Annotated[str | None, typer.Option(help="Granted once, however often it is asked for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give an account credits."""
    body: dict[str, Any] = {
        "amount": amount,
        "kind": "paid" if paid else "promotional",
        "priority": priority,
        "starts_at": starts_at,
        "expires_at": expires_at,
        "api_product": product,
        "reason": reason,
        "reference": reference,
    }
    print_fields(post(f"/accounts/{account}/credits/grants", body), GRANT_FIELDS, as_json=as_json)


@app.command("sell", context_settings=TAKES_AMOUNTS)
def sell(
    account: AccountArgument,
    amount: AmountArgument,
    *,
    priority: Priority = 100,
    expires_at: Expires = None,
    product: Product = None,
    description: Annotated[str, typer.Option(help="What the invoice says.")] = "Prepaid credits",
    as_json: AsJson = False,
) -> None:
    """Sell an account credits by invoice; they are granted when it is paid."""
    body: dict[str, Any] = {
        "amount": amount,
        "priority": priority,
        "expires_at": expires_at,
        "api_product": product,
        "description": description,
    }
    print_fields(post(f"/accounts/{account}/credits/purchases", body), SALE_FIELDS, as_json=as_json)


@app.command("list")
def list_(account: AccountArgument, *, at_most: AtMost = 50, as_json: AsJson = False) -> None:
    """List an account's grants, newest first."""
    rows = pages(f"/accounts/{account}/credits/grants", at_most=at_most)
    print_rows(rows, GRANT_COLUMNS, as_json=as_json)


@app.command("entries")
def entries(
    account: AccountArgument,
    *,
    grant_id: Annotated[str | None, typer.Option("--grant", metavar="GRANT", help="Only of this grant.")] = None,
    at_most: AtMost = 50,
    as_json: AsJson = False,
) -> None:
    """List what an account's credits were used for, newest first."""
    rows = list(pages(f"/accounts/{account}/credits/entries", at_most=at_most, grant_id=grant_id))
    if not as_json:
        for row in rows:
            row["used_for"] = row["invoice_id"] or row["reservation_id"] or row["subscription_id"]
    print_rows(rows, ENTRY_COLUMNS, as_json=as_json)


@app.command("revoke")
def revoke(grant_id: GrantArgument, *, as_json: AsJson = False) -> None:
    """Take back what is left of a grant; what was used stays used."""
    print_fields(post(f"/credits/grants/{grant_id}/revoke"), GRANT_FIELDS, as_json=as_json)


@app.command("reserve", context_settings=TAKES_AMOUNTS)
def reserve(
    account: AccountArgument,
    amount: AmountArgument,
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="What it is for; held once.")],
    *,
    ttl: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="Released by itself after that.")] = 3600,
    product: Product = None,
    as_json: AsJson = False,
) -> None:
    """Hold credits back for something that is about to be done."""
    body = {"amount": amount, "reference": reference, "ttl_seconds": ttl, "api_product": product}
    answer = post(f"/accounts/{account}/credits/reservations", body)
    print_fields(answer, RESERVATION_FIELDS, as_json=as_json)


@app.command("settle", context_settings=TAKES_AMOUNTS)
def settle(reservation: ReservationArgument, amount: AmountArgument, *, as_json: AsJson = False) -> None:
    """Draw what it came to; the rest goes back."""
    answer = post(f"/credits/reservations/{reservation}/settle", {"amount": amount})
    print_fields(answer, RESERVATION_FIELDS, as_json=as_json)


@app.command("release")
def release(reservation: ReservationArgument, *, as_json: AsJson = False) -> None:
    """Give back all that was held."""
    print_fields(post(f"/credits/reservations/{reservation}/release"), RESERVATION_FIELDS, as_json=as_json)


@app.command("reservations")
def reservations(account: AccountArgument, *, at_most: AtMost = 50, as_json: AsJson = False) -> None:
    """List an account's reservations, newest first."""
    rows = pages(f"/accounts/{account}/credits/reservations", at_most=at_most)
    print_rows(rows, RESERVATION_COLUMNS, as_json=as_json)
