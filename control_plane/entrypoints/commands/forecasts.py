"""`km invoices forecast`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

app = typer.Typer()
SURENESS = {
    "high": "four weeks or more to go by, and a narrow range",
    "medium": "some weeks to go by, or a range of some width",
    "low": "few days to go by, or days that differ much",
    "none": "nothing was ever used",
}


@app.command("forecast")
def forecast(
    account: AccountArgument,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what the running billing period will come to at its end, with a range."""
    answer = get(f"/accounts/{account}/forecast/{product}")
    if as_json:
        print_json(answer)
        return
    period = answer["period"]
    typer.echo(
        f"{answer['account_name']} · {answer['api_product_name']} · {period['start']} to {answer['until']}\n"
    )
    print_rows(_rows(answer), ("at_the_end", "so_far", "low", "likely", "high"))
    typer.echo(f"\nSureness: {answer['sureness']} ({SURENESS[answer['sureness']]}); four times out of five")
    typer.echo("the truth lies from low to high")
    if quota := answer["quota"]:
        typer.echo(f"\nQuota: {quota['used_units']:,} of {quota['quota_units']:,} used; {_quota(quota)}")
    if cap := answer["spend_cap"]:
        typer.echo(f"\nSpend cap: {cap['cap']['text']}; reached: {cap['reached']}")
    if answer["note"]:
        typer.echo(f"\n{answer['note']}")


def _rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"at_the_end": meter["meter"], "so_far": meter["used_units"], **meter["at_end"]}
        for meter in answer["meters"]
    ]
    so_far = {"subtotal": answer["subtotal_so_far"]["text"], "total": "-"}
    return rows + [
        {
            "at_the_end": name,
            "so_far": so_far[name],
            **{case: answer[name][case]["text"] for case in ("low", "likely", "high")},
        }
        for name in ("subtotal", "total")
    ]


def _quota(quota: dict[str, Any]) -> str:
    then = "calls are refused" if quota["on_exceed"] == "refuse" else "calls are charged"
    if quota["likely_at"]:
        return f"used up by {quota['likely_at']}, then {then}"
    if quota["earliest_at"]:
        return f"likely not used up; at the earliest by {quota['earliest_at']}, then {then}"
    return "not used up before the end"
