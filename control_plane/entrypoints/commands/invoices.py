"""`km invoices`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

app = typer.Typer(help="Invoices.", no_args_is_help=True)


@app.command("preview")
def preview(
    account: AccountArgument,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what the running billing period costs so far, line by line."""
    answer = get(f"/accounts/{account}/invoices/preview/{product}")
    if as_json:
        print_json(answer)
        return
    period = answer["period"]
    typer.echo(f"{answer['account_name']} · {answer['api_product_name']} · {period['start']} to {period['end']}\n")
    lines = [{**line, "amount": line["amount"]["text"]} for line in answer["lines"]]
    total = {"description": "Total", "formula": "", "amount": answer["total"]["text"]}
    print_rows([*lines, total], ("description", "formula", "amount"))
    if quota := answer["quota"]:
        then = "then refused" if quota["on_exceed"] == "refuse" else "then charged"
        used, units = quota["used_units"], quota["quota_units"]
        typer.echo(f"\nQuota: {used:,} of {units:,} used ({quota['used_percent']:g} %), {then}")
    if cap := answer["spend_cap"]:
        typer.echo(f"\nSpend cap: {cap['cap']['text']}, {cap['left']['text']} left")
