"""`km plans compare`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, get, post
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

app = typer.Typer()
COLUMNS = ("plan", "version", "monthly", "yearly", "setup_fee.text", "refused_units", "note")


@app.command("compare")
def compare(
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")],
    *,
    account: Annotated[
        str | None, typer.Option(metavar="ACCOUNT", help="Whose last 30 days to compare by.")
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option(metavar="METER=UNITS", help="Units of a month in place of an account's: requests=1000000."),
    ] = None,
    currency: Annotated[str, typer.Option(help="In which currency; an account has its own.")] = "USD",
    as_json: AsJson = False,
) -> None:
    """Show what the same use would cost on each plan on sale: an account's last 30 days, or given units."""
    if bool(account) == bool(units):
        fail("say either --account, or --units of a month")
    if account:
        answer = get(f"/accounts/{account}/comparison/{product}")
    else:
        body = {"currency": currency, "units": dict(_read(one) for one in units or ())}
        answer = post(f"/products/{product}/comparison", body)
    if as_json:
        print_json(answer)
        return
    used = ", ".join(f"{count:,} {meter}" for meter, count in answer["demand"]["units"].items()) or "no use"
    refused = answer["demand"]["refused_calls"]
    typer.echo(f"{answer['api_product_name']} · 30 days · {used}" + (f", {refused:,} refused" if refused else ""))
    typer.echo("Without add-ons, discounts and taxes\n")
    print_rows([_row(plan, answer["cheapest_fitting"]) for plan in answer["plans"]], COLUMNS)
    if answer["not_sold"]:
        typer.echo(f"\nNot sold in this currency: {', '.join(answer['not_sold'])}")


def _read(text: str) -> tuple[str, int]:
    meter, _, count = text.partition("=")
    if not meter or not count.isdecimal():
        fail(f"--units: {text!r} is not METER=UNITS, like requests=1000000")
    return meter, int(count)


def _row(plan: dict[str, Any], cheapest: str | None) -> dict[str, Any]:
    notes = [
        *(["held"] if plan["held"] else []),
        *(["cheapest that fits"] if plan["plan"] == cheapest else []),
        *([plan["refuses"]] if plan["refuses"] else []),
    ]
    amounts = {
        name: "by quote" if plan["by_quote"] else (plan[name] or {}).get("text") for name in ("monthly", "yearly")
    }
    return {**plan, **amounts, "note": "; ".join(notes) or None}
