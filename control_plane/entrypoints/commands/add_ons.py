"""`km subscriptions add-on`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import get, post, put
from control_plane.entrypoints.commands.output import AsJson, print_rows
from control_plane.entrypoints.commands.subscription_output import (
    ADD_ON_COLUMNS,
    SubscriptionArgument,
    print_subscription,
)

app = typer.Typer(help="Add-ons beside a subscription's plan.", no_args_is_help=True)
AddOnArgument = Annotated[str, typer.Argument(metavar="ADD_ON", help="The add-on's code.")]


@app.command("add")
def add(
    subscription: SubscriptionArgument,
    add_on: AddOnArgument,
    *,
    quantity: Annotated[int, typer.Option(min=1, help="How many of it.")] = 1,
    allow_unlisted: Annotated[
        bool, typer.Option("--allow-unlisted", help="Permit hidden add-ons and add-ons by quote.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add an add-on from now on."""
    body = {"add_on": add_on, "quantity": quantity, "allow_unlisted": allow_unlisted}
    print_subscription(post(f"/subscriptions/{subscription}/add-ons", body), as_json=as_json)


@app.command("quantity")
def quantity(
    subscription: SubscriptionArgument,
    add_on: AddOnArgument,
    wanted: Annotated[int, typer.Argument(metavar="QUANTITY", min=1)],
    *,
    as_json: AsJson = False,
) -> None:
    """Have another quantity of an add-on from now on."""
    answer = put(f"/subscriptions/{subscription}/add-ons/{add_on}", {"quantity": wanted})
    print_subscription(answer, as_json=as_json)


@app.command("remove")
def remove(
    subscription: SubscriptionArgument,
    add_on: AddOnArgument,
    *,
    at: Annotated[str, typer.Option(help="now or period_end.")] = "period_end",
    as_json: AsJson = False,
) -> None:
    """End an add-on, by default when the billing period ends."""
    answer = post(f"/subscriptions/{subscription}/add-ons/{add_on}/remove", {"at": at})
    print_subscription(answer, as_json=as_json)


@app.command("keep")
def keep(subscription: SubscriptionArgument, add_on: AddOnArgument, *, as_json: AsJson = False) -> None:
    """Take a removal at period end back."""
    print_subscription(post(f"/subscriptions/{subscription}/add-ons/{add_on}/keep"), as_json=as_json)


@app.command("list")
def list_(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """List the add-ons in force now or later, oldest first."""
    print_rows(get(f"/subscriptions/{subscription}/add-ons")["items"], ADD_ON_COLUMNS, as_json=as_json)
