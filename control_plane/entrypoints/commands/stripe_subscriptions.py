"""`km checkouts`, `km stripe portal`, and `preview` and `stripe` of `km subscriptions`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.subscription_output import SubscriptionArgument

checkouts = typer.Typer(help="First purchases at Stripe's Checkout.", no_args_is_help=True)
CHECKOUT_COLUMNS = ("id", "plan", "plan_version", "state", "subscription_id", "created_at", "expires_at")
CHECKOUT_FIELDS = (
    "id",
    "account_id",
    "plan",
    "plan_version",
    "currency",
    "state",
    "problem",
    "trial_ends_at",
    "has_discount",
    "subscription_id",
    "created_at",
    "expires_at",
    "finished_at",
)
PREVIEW_FIELDS = ("at", "effective_at", "proration_at", "subtotal.text", "total.text", "amount_due.text")
STANDING_FIELDS = (
    "subscription_id",
    "stripe_id",
    "customer_id",
    "status",
    "current_period_start",
    "current_period_end",
    "trial_end",
    "cancel_at",
    "schedule_id",
    "pending_update_until",
    "automatic_tax",
    "problem",
    "read_at",
)
CheckoutArgument = Annotated[str, typer.Argument(metavar="CHECKOUT", help="The checkout's id.")]
Unlisted = Annotated[bool, typer.Option("--allow-unlisted", help="Permit hidden plans and plans by quote.")]


@checkouts.command("start")
def start(
    account: AccountArgument,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The plan's code.")],
    *,
    success_url: Annotated[str, typer.Option(metavar="URL", help="Where the browser goes when it is paid.")],
    cancel_url: Annotated[str, typer.Option(metavar="URL", help="Where it goes when the customer turns back.")],
    trial: Annotated[
        bool | None,
        typer.Option(
            "--trial/--no-trial", help="The plan's trial, again if need be, or none.", show_default=False
        ),
    ] = None,
    promotion_code: Annotated[str | None, typer.Option(metavar="CODE")] = None,
    allow_unlisted: Unlisted = False,
    as_json: AsJson = False,
) -> None:
    """Open a checkout, or the same one again, and print where the customer pays."""
    body = {
        "plan": plan,
        "success_url": success_url,
        "cancel_url": cancel_url,
        "trial": trial,
        "promotion_code": promotion_code,
        "allow_unlisted": allow_unlisted,
    }
    started = post(f"/accounts/{account}/checkouts", body)
    if as_json:
        print_json(started)
        return
    print_fields(started, (*CHECKOUT_FIELDS, "url"))


@checkouts.command("list")
def list_(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """List an account's checkouts, newest first."""
    print_rows(get(f"/accounts/{account}/checkouts")["items"], CHECKOUT_COLUMNS, as_json=as_json)


@checkouts.command("show")
def show(checkout: CheckoutArgument, *, as_json: AsJson = False) -> None:
    """Show one checkout."""
    _print(get(f"/checkouts/{checkout}"), CHECKOUT_FIELDS, as_json=as_json)


@checkouts.command("close")
def close(checkout: CheckoutArgument, *, as_json: AsJson = False) -> None:
    """Close one that nobody has completed."""
    _print(post(f"/checkouts/{checkout}/close"), CHECKOUT_FIELDS, as_json=as_json)


def portal(
    account: AccountArgument,
    *,
    return_url: Annotated[str, typer.Option(metavar="URL", help="Where the portal's way back leads.")],
    card: Annotated[bool, typer.Option("--card", help="Go straight to giving another card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the way into Stripe's customer portal for an account: good for minutes, for one visitor."""
    body = {"return_url": return_url, "flow": "payment_method_update" if card else None}
    _print(post(f"/accounts/{account}/portal-sessions", body), ("url",), as_json=as_json)


def preview(
    subscription: SubscriptionArgument,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The plan's code.")],
    *,
    at: Annotated[str, typer.Option(help="auto, now or period_end.")] = "auto",
    allow_unlisted: Unlisted = False,
    as_json: AsJson = False,
) -> None:
    """Show what another plan would cost at once, where Stripe bills it."""
    body = {"plan": plan, "at": at, "allow_unlisted": allow_unlisted}
    found = post(f"/subscriptions/{subscription}/preview-change", body)
    _print(found, PREVIEW_FIELDS, as_json=as_json)
    if not as_json and found["lines"]:
        typer.echo()
        print_rows(found["lines"], ("description", "amount.text"))


def standing(
    subscription: SubscriptionArgument,
    *,
    refresh: Annotated[bool, typer.Option("--refresh", help="Read it at Stripe now, and follow it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how it stands at Stripe, and what was wanted of Stripe for it."""
    path = f"/subscriptions/{subscription}/stripe"
    found = post(f"{path}/refresh") if refresh else get(path)
    _print(found, STANDING_FIELDS, as_json=as_json)
    if as_json:
        return
    for name, columns in (
        ("items", ("item_id", "price_id", "quantity")),
        ("discounts", ("discount_id", "coupon_id", "starts_at", "ends_at")),
        ("changes", ("id", "kind", "state", "problem", "created_at", "effective_at")),
    ):
        if found[name]:
            typer.echo()
            print_rows(found[name], columns)


def _print(found: dict[str, object], fields: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_fields(found, fields)
