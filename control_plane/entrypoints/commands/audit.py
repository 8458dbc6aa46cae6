"""`km audit`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import pages
from control_plane.entrypoints.commands.output import AsJson, print_rows

COLUMNS = ("at", "actor", "action", "entity_type", "entity_id", "request_id")


def audit(
    entity: Annotated[str | None, typer.Option(metavar="ID", help="Changes of one thing.")] = None,
    actor: Annotated[str | None, typer.Option(help="Changes by one actor, like token:tok_…")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, newest first."""
    rows = pages("/audit", at_most=at_most, entity_id=entity, actor=actor)
    print_rows(rows, COLUMNS, as_json=as_json)
