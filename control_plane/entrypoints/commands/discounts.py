"""`km subscriptions discount`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import delete, get, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_rows
from control_plane.entrypoints.commands.subscription_output import SubscriptionArgument

app = typer.Typer(help="Discounts on a subscription.", no_args_is_help=True)
COLUMNS = (
    "id",
    "name",
    "percent",
    "amount.text",
    "scope",
    "source",
    "promotion_code",
    "holds_from",
    "ends_at",
    "periods_left",
    "taken_off.text",
    "over",
)
FIELDS = (*COLUMNS[:1], "subscription_id", "coupon", *COLUMNS[1:], "removed_at")


@app.command("add")
def add(
    subscription: SubscriptionArgument,
    *,
    coupon: Annotated[str | None, typer.Option(metavar="COUPON", help="A coupon's code.")] = None,
    code: Annotated[str | None, typer.Option(metavar="CODE", help="A promotion code.")] = None,
    starts: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="now (the running billing period) or next_period; the latter unless it just began.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a coupon onto a subscription, or redeem a promotion code for it: --coupon or --code."""
    body = {"coupon": coupon, "promotion_code": code, "starts": starts}
    print_fields(post(f"/subscriptions/{subscription}/discounts", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """List a subscription's discounts in the order in which they apply."""
    print_rows(get(f"/subscriptions/{subscription}/discounts")["items"], COLUMNS, as_json=as_json)


@app.command("remove")
def remove(
    subscription: SubscriptionArgument,
    discount: Annotated[str, typer.Argument(metavar="DISCOUNT", help="The discount's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Take a discount away: with the billing period if it took something off, else now."""
    print_fields(delete(f"/subscriptions/{subscription}/discounts/{discount}"), FIELDS, as_json=as_json)
