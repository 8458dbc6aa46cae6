"""`km tokens`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import get, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(help="API tokens: who may use the admin API (owners only).", no_args_is_help=True)
COLUMNS = ("id", "name", "role", "created_at", "expires_at", "revoked_at", "last_used_at")


@app.command("create")
def create(
    name: str,
    role: Annotated[str, typer.Option(help="owner, admin, finance, support, read_only or ingest.")] = "read_only",
    expires_at: Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it. It is shown this once."""
    created = post("/tokens", {"name": name, "role": role, "expires_at": expires_at})
    if as_json:
        print_json(created)
        return
    print_fields(created["token"], ("id", "name", "role", "expires_at"))
    typer.echo(f"\n{created['text']}\n")


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List all tokens, newest first."""
    print_rows(get("/tokens")["items"], COLUMNS, as_json=as_json)


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN_ID", help="The token's id (not the token).")],
    *,
    as_json: AsJson = False,
) -> None:
    """Refuse a token from now on."""
    print_fields(post(f"/tokens/{token}/revoke"), COLUMNS, as_json=as_json)
