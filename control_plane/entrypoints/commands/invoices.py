"""`km invoices`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get
from control_plane.entrypoints.commands.invoice_lines import Explain, print_lines
from control_plane.entrypoints.commands.invoice_reading import InvoiceArgument
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows, short_moment

app = typer.Typer(help="Invoices.", no_args_is_help=True)


@app.command("preview")
def preview(
    account: AccountArgument,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")],
    *,
    period_start: Annotated[
        str | None, typer.Option(metavar="TIME", help="A moment of another billing period, 2026-03-01T00:00:00Z.")
    ] = None,
    explain: Explain = False,
    as_json: AsJson = False,
) -> None:
    """Show what a billing period costs so far, line by line: the running one, or the last."""
    answer = get(f"/accounts/{account}/invoices/preview/{product}", period_start=period_start)
    if as_json:
        print_json(answer)
        return
    period = answer["period"]
    typer.echo(f"{answer['account_name']} · {answer['api_product_name']} · {_span(period)}\n")
    if trial := answer["trial"]:
        _print_trial(trial, explain=explain)
    elif not answer["lines"]:
        typer.echo("Nothing is charged in this period.")
    else:
        print_lines(answer["lines"], _sums(answer), explain=explain, of_periods=False)
    if quota := answer["quota"]:
        then = "then refused" if quota["on_exceed"] == "refuse" else "then charged"
        used, units = quota["used_units"], quota["quota_units"]
        typer.echo(f"\nQuota: {used:,} of {units:,} used ({quota['used_percent']:g} %), {then}")
    if cap := answer["spend_cap"]:
        typer.echo(f"\nSpend cap: {cap['cap']['text']}, {cap['left']['text']} left")
    if following := answer["stripe_invoice"]:
        typer.echo(f"\n{_at_stripe(following)}")


def _at_stripe(following: dict[str, Any]) -> str:
    """Say what Stripe will bill next; `km stripe invoices expected` has its lines."""
    unknown = ", and tax, which Stripe reckons" if following["unknown"] else ""
    amount = following["amount_due"]["text"]
    return f"Stripe bills it. Its next invoice, on {short_moment(following['at'])}: {amount}{unknown}"


def _span(period: dict[str, str]) -> str:
    return f"{short_moment(period['start'])} to {short_moment(period['end'])}"


def _print_trial(trial: dict[str, Any], *, explain: bool) -> None:
    """Say why nothing is charged, and what will be."""
    typer.echo(f"In the trial, which lasts until {short_moment(trial['ends_at'])}, nothing is charged.")
    if not trial["goes_on"]:
        typer.echo("The subscription ends with it.")
        return
    if not trial["lines"]:
        typer.echo("From then on usage is charged by the plan's prices, and nothing in advance.")
        return
    typer.echo("Then it goes on and is billed. Charged in advance, before any use:\n")
    print_lines(
        trial["lines"], [("Total", _with_taxes(trial), trial["total"]["text"])], explain=explain, of_periods=False
    )


def _sums(preview: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows below the lines: discounts and taxes where there are any, and the total."""
    rows = [(discount["description"], "", f"-{discount['amount']['text']}") for discount in preview["discounts"]]
    rows += [
        (tax["name"], f"{tax['percent']} % of {tax['taxable']['text']}", tax["amount"]["text"])
        for tax in preview["taxes"]
    ]
    if rows:
        rows.insert(0, ("Subtotal", "", preview["subtotal"]["text"]))
    return [*rows, ("Total", "", preview["total"]["text"])]


def _with_taxes(trial: dict[str, Any]) -> str:
    """Say where the total is not the sum of the lines."""
    lines = sum(line["amount"]["amount_minor"] for line in trial["lines"])
    return "" if lines == trial["total"]["amount_minor"] else "with discounts and taxes"


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
    other = f", {answer['other_units']:,} of them in no sealed hour" if answer["other_units"] else ""
    typer.echo(f"\n{answer['used_units']:,} {answer['meter']}{other}")
    if answer["next_cursor"]:
        typer.echo(f"More: --cursor {answer['next_cursor']}")
