"""`km gateway`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import get, post
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

app = typer.Typer(help="The Kong nodes: what they are given and what they run.", no_args_is_help=True)
COLUMNS = ("name", "status", "current", "config_hash", "pushed_at", "checked_at", "detail")
PUSH_COLUMNS = ("name", "outcome", "config_hash", "detail")


@app.command("status")
def status(
    *,
    check: Annotated[bool, typer.Option("--check", help="Ask every node first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every node. Exit code 1 when one does not run what it should."""
    gateway: dict[str, Any] = post("/gateway/check") if check else get("/gateway")
    if as_json:
        print_json(gateway)
    else:
        print_rows(gateway["nodes"], COLUMNS)
        if gateway["error"]:
            typer.echo(f"km: {gateway['error']}", err=True)
    if gateway["error"] or not all(node["current"] for node in gateway["nodes"]):
        raise typer.Exit(1)


@app.command("preview")
def preview(
    *,
    diff: Annotated[bool, typer.Option("--diff", help="Only what differs from the base.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the configuration that a push would send."""
    answer = get("/gateway/preview")
    if as_json:
        print_json(answer)
        return
    typer.echo(answer["diff"] if diff else answer["text"], nl=False)
    for line in answer["added"]:
        typer.echo(f"added: {line}", err=True)


@app.command("push")
def push(*, as_json: AsJson = False) -> None:
    """Give every node the configuration and verify it. Exit code 1 when one does not run it then."""
    report = post("/gateway/push")
    if as_json:
        print_json(report)
    else:
        print_rows(report["nodes"], PUSH_COLUMNS)
    if not report["succeeded"]:
        raise typer.Exit(1)
