"""`km subscriptions`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands import add_ons, discounts, stripe_subscriptions
from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import delete, get, post, post_all, put
from control_plane.entrypoints.commands.output import TAKES_AMOUNTS, AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.subscription_output import (
    SubscriptionArgument,
    demand_words,
    print_subscription,
)
from control_plane.entrypoints.commands.values import parse_limits

app = typer.Typer(help="Subscriptions: which plan an account is on.", no_args_is_help=True)
app.add_typer(add_ons.app, name="add-on")
app.add_typer(discounts.app, name="discount")
app.command("preview")(stripe_subscriptions.preview)
app.command("stripe")(stripe_subscriptions.standing)
COLUMNS = ("id", "api_product", "plan", "plan_version", "status", "started_at", "ends_at")
OFFER_COLUMNS = ("plan", "price.text", "refuses")
PERIOD_COLUMNS = ("start", "end", "mode", "calls", "units", "billable_calls", "billable_units", "open_hours")
PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's code.")]
PromotionCode = Annotated[
    str | None, typer.Option(metavar="CODE", help="Redeemed with it; if it is refused, nothing is done.")
]
Unlisted = Annotated[bool, typer.Option("--allow-unlisted", help="Permit hidden plans and plans by quote.")]


@app.command("create")
def create(
    account: AccountArgument,
    plan: PlanArgument,
    *,
    anchor_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where billing periods begin; the current hour if left out.")
    ] = None,
    anchor_day: Annotated[
        int | None,
        typer.Option(min=1, max=31, help="Day of the month, in the account's time zone, in place of --anchor-at."),
    ] = None,
    trial: Annotated[
        bool | None,
        typer.Option(
            "--trial/--no-trial", help="The plan's trial, again if need be, or none.", show_default=False
        ),
    ] = None,
    promotion_code: PromotionCode = None,
    allow_unlisted: Unlisted = False,
    as_json: AsJson = False,
) -> None:
    """Put an account on a plan from now on, with the plan's trial if it is new to the API product."""
    body = {
        "plan": plan,
        "anchor_at": anchor_at,
        "anchor_day": anchor_day,
        "trial": trial,
        "promotion_code": promotion_code,
        "allow_unlisted": allow_unlisted,
    }
    print_subscription(post(f"/accounts/{account}/subscriptions", body), as_json=as_json)


@app.command("change")
def change(
    subscription: SubscriptionArgument,
    plan: PlanArgument,
    *,
    at: Annotated[
        str, typer.Option(help="auto (now for more, when the billing period ends for less), now or period_end.")
    ] = "auto",
    proration_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of a preview, where Stripe bills it: the price is the same."),
    ] = None,
    promotion_code: PromotionCode = None,
    allow_unlisted: Unlisted = False,
    as_json: AsJson = False,
) -> None:
    """Move to another plan, or to the newest version of the same."""
    body = {
        "plan": plan,
        "at": at,
        "proration_at": proration_at,
        "promotion_code": promotion_code,
        "allow_unlisted": allow_unlisted,
    }
    changed = post(f"/subscriptions/{subscription}/change", body)
    print_subscription(changed, as_json=as_json)
    if not as_json and changed["stripe_change"] is None:
        when = "In force now" if changed["changed_at"] == "now" else f"Planned for {changed['effective_at']}"
        typer.echo(f"{when}.", err=True)


@app.command("discard-change")
def discard_change(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """Take a planned change of plan back."""
    print_subscription(post(f"/subscriptions/{subscription}/discard-change"), as_json=as_json)


@app.command("cancel")
def cancel(
    subscription: SubscriptionArgument,
    *,
    at: Annotated[str, typer.Option(help="now or period_end.")] = "period_end",
    credit_unused: Annotated[
        bool, typer.Option("--credit-unused", help="With --at now: credit what was paid for the time after.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End it, by default when the billing period ends."""
    body = {"at": at, "unused_time": "credited" if credit_unused else "kept"}
    print_subscription(post(f"/subscriptions/{subscription}/cancel", body), as_json=as_json)


@app.command("keep")
def keep(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """Take a cancellation at period end back."""
    print_subscription(post(f"/subscriptions/{subscription}/keep"), as_json=as_json)


@app.command("status")
def status(
    subscription: SubscriptionArgument,
    wanted: Annotated[str, typer.Argument(metavar="STATUS", help="active, past_due or paused.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say that a payment failed or arrived, pause it or resume it."""
    print_subscription(post(f"/subscriptions/{subscription}/status", {"status": wanted}), as_json=as_json)


@app.command("pause")
def pause(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """Let it rest: no calls, no charges."""
    print_subscription(post(f"/subscriptions/{subscription}/pause"), as_json=as_json)


@app.command("resume")
def resume(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """Let a paused one go on."""
    print_subscription(post(f"/subscriptions/{subscription}/resume"), as_json=as_json)


@app.command("end-trial")
def end_trial(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """End a trial now and go on as a paying subscription."""
    print_subscription(post(f"/subscriptions/{subscription}/end-trial"), as_json=as_json)


@app.command("extend-trial")
def extend_trial(
    subscription: SubscriptionArgument,
    ends_at: Annotated[str, typer.Argument(metavar="TIME", help="Its new end, a full hour.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Let a trial end later."""
    body = {"ends_at": ends_at}
    print_subscription(post(f"/subscriptions/{subscription}/extend-trial", body), as_json=as_json)


@app.command("override")
def override(
    subscription: SubscriptionArgument,
    *,
    limit: Annotated[
        list[str] | None, typer.Option(help="In place of the plan's, like 5/second; may be repeated.")
    ] = None,
    plan_limits: Annotated[bool, typer.Option("--plan-limits", help="Go back to the plan's limits.")] = False,
    quota_units: Annotated[int | None, typer.Option(min=1, help="In place of the plan's quota.")] = None,
    plan_quota: Annotated[bool, typer.Option("--plan-quota", help="Go back to the plan's quota.")] = False,
    quota_cap_units: Annotated[
        int | None, typer.Option(min=1, help="In place of the cap of the plan's quota.")
    ] = None,
    plan_quota_cap: Annotated[bool, typer.Option("--plan-quota-cap", help="Go back to the plan's cap.")] = False,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Calls at a time, in place of the plan's.")
    ] = None,
    plan_concurrency: Annotated[
        bool, typer.Option("--plan-concurrency", help="Go back to the plan's calls at a time.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give one subscription limits of its own; what is not named stays as it is."""
    given = {
        "windows": (parse_limits(limit) if limit else None, plan_limits),
        "quota_units": (quota_units, plan_quota),
        "quota_cap_units": (quota_cap_units, plan_quota_cap),
        "concurrency_limit": (concurrency, plan_concurrency),
    }
    if any(own is not None and plans for own, plans in given.values()):
        raise typer.BadParameter("give either a value of its own or the plan's")
    body: dict[str, Any] = {field: own for field, (own, plans) in given.items() if own is not None or plans}
    if not body:
        raise typer.BadParameter("give at least one option to change")
    print_subscription(post_all(f"/subscriptions/{subscription}/override", body), as_json=as_json)


@app.command("spend-cap", context_settings=TAKES_AMOUNTS)
def spend_cap(
    subscription: SubscriptionArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 250.00, before tax; or none.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Set the most to pay for a billing period, or take it away."""
    path = f"/subscriptions/{subscription}/spend-cap"
    answer = delete(path) if amount == "none" else put(path, {"amount": amount})
    if as_json:
        print_json(answer)
        return
    print_fields(answer, ("subscription_id", "spend_cap.text"))
    if answer["spend_cap"] is not None and not answer["effective"]:
        typer.echo("The plan charges nothing by use: there is nothing to cap until another plan does.", err=True)


@app.command("list")
def list_(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """List an account's subscriptions, newest first."""
    print_rows(get(f"/accounts/{account}/subscriptions")["items"], COLUMNS, as_json=as_json)


@app.command("show")
def show(subscription: SubscriptionArgument, *, as_json: AsJson = False) -> None:
    """Show one subscription with its phases, and what its last 30 days would have cost on larger plans."""
    found = get(f"/subscriptions/{subscription}")
    print_subscription(found, as_json=as_json)
    fitting = found["fitting_plan"]
    if fitting is not None and not as_json:
        typer.echo(f"\n{demand_words(fitting['demand'])}\nThe same on larger plans:\n")
        print_rows(fitting["offers"], OFFER_COLUMNS)


@app.command("usage")
def usage(
    subscription: SubscriptionArgument,
    *,
    periods: Annotated[int, typer.Option(min=1, max=60, help="How many billing periods.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Show what billing periods used, the running (or last) one first."""
    answer = get(f"/subscriptions/{subscription}/usage", limit=periods)
    if as_json:
        print_json(answer)
        return
    rows = [
        {
            "start": period["start"],
            "end": period["end"],
            "mode": mode,
            **figures,
            "open_hours": period["open_hours"],
        }
        for period in answer["items"]
        for mode, figures in (period["figures"] or {"-": {}}).items()
    ]
    print_rows(rows, PERIOD_COLUMNS)
