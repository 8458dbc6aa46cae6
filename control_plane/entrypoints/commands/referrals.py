"""`km referrals`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import delete, get, pages, post, put
from control_plane.entrypoints.commands.output import TAKES_AMOUNTS, AsJson, print_fields, print_rows

app = typer.Typer(help="Referrals: who brought which account, and what that is worth.", no_args_is_help=True)
FIELDS = ("account_id", "referrer_id", "state", "reward.text", "created_at", "settled_at", "invoice_id")
REPORT_COLUMNS = ("referrer_id", "referrer_name", "brought", "paying", "rewarded.text", "pending.text")
REWARD_FIELDS = ("currency", "reward.text")
CurrencyArgument = Annotated[str, typer.Argument(metavar="CURRENCY", help="What referrers pay in, such as USD.")]
AtMost = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]


@app.command("code")
def code(account: AccountArgument, *, as_json: AsJson = False) -> None:
    """Show the code that an account gives to those whom it brings."""
    print_fields(post(f"/accounts/{account}/referral-code"), ("account_id", "code"), as_json=as_json)


@app.command("assign")
def assign(
    account: AccountArgument,
    code: Annotated[str, typer.Argument(metavar="CODE", help="The referrer's code.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Note who brought an account: before its first payment, once for ever."""
    print_fields(post("/referrals", {"account_id": account, "code": code}), FIELDS, as_json=as_json)


@app.command("list")
def list_(
    *,
    referrer: Annotated[
        str | None, typer.Option(metavar="ACCOUNT", help="Only what this account brought.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="pending, rewarded or forfeited.")] = None,
    at_most: AtMost = 50,
    as_json: AsJson = False,
) -> None:
    """List referrals, the last one first."""
    found = pages("/referrals", at_most=at_most, referrer_id=referrer, state=state)
    print_rows(found, FIELDS, as_json=as_json)


@app.command("report")
def report(*, at_most: AtMost = 200, as_json: AsJson = False) -> None:
    """Show what each referrer brought and was paid."""
    print_rows(pages("/referrals/referrers", at_most=at_most), REPORT_COLUMNS, as_json=as_json)


@app.command("rewards")
def rewards(*, as_json: AsJson = False) -> None:
    """List what a new paying account is worth, by the referrer's currency."""
    print_rows(get("/referrals/rewards")["items"], REWARD_FIELDS, as_json=as_json)


@app.command("reward", context_settings=TAKES_AMOUNTS)
def reward(
    currency: CurrencyArgument,
    amount: Annotated[str | None, typer.Argument(metavar="[AMOUNT]", help="Such as 25.00.")] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="Reward them no more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set what a new paying account is worth to referrers who pay in a currency."""
    if (amount is None) is not none:
        raise typer.BadParameter("give an amount, or --none")
    path = f"/referrals/rewards/{currency}"
    answer = delete(path) if amount is None else put(path, {"amount": amount})
    print_fields(answer, REWARD_FIELDS, as_json=as_json)
