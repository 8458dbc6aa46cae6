"""`km db`: what needs the database itself, before there is a server or a token."""

import asyncio
import os
from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import fail
from control_plane.entrypoints.commands.output import AsJson, print_json

app = typer.Typer(help="The database: schema, first token. Reads KM_DATABASE_URL.", no_args_is_help=True)


@app.command("upgrade")
def upgrade() -> None:
    """Bring the schema to the newest version. Safe to repeat, and to run from several places at once."""
    from sqlalchemy.exc import OperationalError

    from control_plane.entrypoints import migrations

    try:
        migrations.upgrade(_database_url())
    except OperationalError as error:
        fail(f"KM_DATABASE_URL: cannot use the database: {_first_line(error)}")
    typer.echo("The schema is up to date.", err=True)


@app.command("create-token")
def create_token(
    name: Annotated[str, typer.Option(help="Who or what holds it.")] = "first",
    role: Annotated[str, typer.Option(help="owner, admin, finance, support, read_only or ingest.")] = "owner",
    *,
    as_json: AsJson = False,
) -> None:
    """Make an API token and print it (alone on stdout). It is shown this once."""
    from sqlalchemy.exc import DBAPIError

    from control_plane.foundation.errors import KmError

    try:
        text, token_id = asyncio.run(_create_token(_database_url(), name=name, role=role))
    except KmError as error:
        fail(error.message)
    except DBAPIError as error:
        fail(f"KM_DATABASE_URL: {_first_line(error)} (was `km db upgrade` run?)")
    if as_json:
        print_json({"id": token_id, "text": text})
        return
    typer.echo(text)


async def _create_token(url: str, *, name: str, role: str) -> tuple[str, str]:
    from control_plane.accounts import tokens
    from control_plane.foundation.clock import utc_now
    from control_plane.foundation.db import create_engine, session_factory

    engine = create_engine(url, pool_size=1)
    try:
        async with session_factory(engine)() as session, session.begin():
            created = await tokens.create_token(session, name=name, role=role, actor="console", now=utc_now())
            return created.text, created.token.id
    finally:
        await engine.dispose()


def _database_url() -> str:
    """Read the one setting these commands need; a machine that runs only them need not know the others."""
    url = os.environ.get("KM_DATABASE_URL", "")
    if not url.startswith("postgresql+psycopg://"):
        fail("KM_DATABASE_URL: must be set, like postgresql+psycopg://user:password@host/database")
    return url


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]
