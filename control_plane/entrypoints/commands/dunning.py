"""`km dunning`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_rows

app = typer.Typer(help="Unpaid subscriptions: grace, notices, what holds after it.", no_args_is_help=True)
COLUMNS = ("id", "account_id", "state", "after", "opened_at", "grace_until", "told", "next_step_at")
FIELDS = (*COLUMNS, "subscription_id", "fell_at", "closed_at")
NOTICE_COLUMNS = ("severity", "text", "until", "link")


@app.command("list")
def list_(
    *,
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only one account's.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Closed cases, too.")] = False,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List unpaid subscriptions, newest first."""
    wanted = {"account_id": account, "open": None if every else "true"}
    print_rows(pages("/dunning", at_most=at_most, **wanted), COLUMNS, as_json=as_json)


@app.command("grant-time")
def grant_time(
    case: Annotated[str, typer.Argument(metavar="CASE", help="The case's id.")],
    until: Annotated[str, typer.Argument(metavar="TIME", help="RFC 3339, such as 2026-12-01T00:00:00Z.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Give a customer until another moment to pay; all limits hold again at once."""
    print_fields(post(f"/dunning/{case}/grant-time", {"until": until}), FIELDS, as_json=as_json)


@app.command("notices")
def notices(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what stands on an account's pages."""
    print_rows(get(f"/accounts/{account}/notices")["items"], NOTICE_COLUMNS, as_json=as_json)
