"""How commands name and show a subscription."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.output import print_fields, print_json, print_rows

FIELDS = (
    "id",
    "account_id",
    "api_product",
    "status",
    "plan_name",
    "plan_version",
    "current_period.start",
    "current_period.end",
    "time_zone",
    "started_at",
    "trial_ends_at",
    "ends_at",
    "spend_cap.text",
)
PHASE_COLUMNS = ("plan", "plan_version", "kind", "starts_at", "ends_at")
ADD_ON_COLUMNS = ("add_on", "version", "quantity", "starts_at", "ends_at")
DISCOUNT_COLUMNS = ("name", "percent", "amount.text", "source", "holds_from", "ends_at", "taken_off.text", "over")
SubscriptionArgument = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="The subscription's id.")]


def print_subscription(subscription: dict[str, Any], *, as_json: bool) -> None:
    """Print a subscription with its phases, and its add-ons if it has any."""
    if as_json:
        print_json(subscription)
        return
    print_fields(subscription, FIELDS)
    typer.echo()
    print_rows(subscription["phases"], PHASE_COLUMNS)
    if subscription["add_ons"]:
        typer.echo()
        print_rows(subscription["add_ons"], ADD_ON_COLUMNS)
    if subscription["stripe_change"]:
        typer.echo(f"\n{change_words(subscription['stripe_change'])}", err=True)
    if subscription.get("discounts"):
        typer.echo()
        print_rows(subscription["discounts"], DISCOUNT_COLUMNS)


def change_words(change: dict[str, Any]) -> str:
    """Return how far a change is at Stripe, as a sentence."""
    if change["state"] == "pending":
        return "Stripe waits for a payment: nothing has changed yet. The customer can pay in the portal."
    return f"On its way to Stripe ({change['problem'] or 'a worker sees to it'})"


def demand_words(demand: dict[str, Any]) -> str:
    """Return what was asked for in the days before, and how much of it was refused, as a sentence."""
    used = ", ".join(f"{count:,} {meter}" for meter, count in demand["units"].items()) or "nothing"
    refused = f"; {demand['refused_calls']:,} calls refused" if demand["refused_calls"] else ""
    refused += f", {demand['rate_limited_calls']:,} by a rate limit" if demand["rate_limited_calls"] else ""
    busiest = f"; at most {demand['peak_hour_calls']:,} calls in an hour"
    return f"In the last {demand['days']} days: {used}{refused}{busiest}."
