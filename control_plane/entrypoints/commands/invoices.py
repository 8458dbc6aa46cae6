"""`km invoices`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get
from control_plane.entrypoints.commands.invoice_reading import InvoiceArgument
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

app = typer.Typer(help="Invoices.", no_args_is_help=True)


@app.command("preview")
def preview(
    account: AccountArgument,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")],
    *,
    period_start: Annotated[
        str | None, typer.Option(metavar="TIME", help="A moment of another billing period, 2026-03-01T00:00:00Z.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a billing period costs so far, line by line: the running one, or the last."""
    answer = get(f"/accounts/{account}/invoices/preview/{product}", period_start=period_start)
    if as_json:
        print_json(answer)
        return
    period = answer["period"]
    typer.echo(f"{answer['account_name']} · {answer['api_product_name']} · {period['start']} to {period['end']}\n")
    lines = [{**line, "amount": line["amount"]["text"]} for line in answer["lines"]]
    print_rows([*lines, *_sums(answer)], ("description", "formula", "amount"))
    if quota := answer["quota"]:
        then = "then refused" if quota["on_exceed"] == "refuse" else "then charged"
        used, units = quota["used_units"], quota["quota_units"]
        typer.echo(f"\nQuota: {used:,} of {units:,} used ({quota['used_percent']:g} %), {then}")
    if cap := answer["spend_cap"]:
        typer.echo(f"\nSpend cap: {cap['cap']['text']}, {cap['left']['text']} left")


def _sums(preview: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows below the lines: discounts and taxes where there are any, and the total."""
    rows = [
        {"description": discount["description"], "formula": "", "amount": f"-{discount['amount']['text']}"}
        for discount in preview["discounts"]
    ]
    rows += [
        {
            "description": tax["name"],
            "formula": f"{tax['percent']} % of {tax['taxable']['text']}",
            "amount": tax["amount"]["text"],
        }
        for tax in preview["taxes"]
    ]
    if rows:
        rows.insert(0, {"description": "Subtotal", "formula": "", "amount": preview["subtotal"]["text"]})
    return [*rows, {"description": "Total", "formula": "", "amount": preview["total"]["text"]}]


@app.command("line-usage")
def line_usage(
    invoice: InvoiceArgument,
    position: Annotated[int, typer.Argument(metavar="LINE", help="The line's place on the invoice, from 1.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Hours at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the hours whose units a usage line charges."""
    answer = get(f"/invoices/{invoice}/lines/{position}/usage", limit=limit, cursor=cursor)
    if as_json:
        print_json(answer)
        return
    print_rows(answer["items"], ("hour", "units", "sealed_at"))
    typer.echo(
        f"\n{answer['used_units']:,} {answer['meter']}, {answer['other_units']:,} of them in no sealed hour"
    )
    if answer["next_cursor"]:
        typer.echo(f"More: --cursor {answer['next_cursor']}")
