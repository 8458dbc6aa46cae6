"""`km plans draft`: terms that are worked on before they are sold."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import delete, fail, get, post, put
from control_plane.entrypoints.commands.output import AsJson, print_json
from control_plane.entrypoints.commands.plan_tables import print_fields_changed, print_impact, version_summary

app = typer.Typer(help="Drafts of plans: kept, looked at, published or thrown away.", no_args_is_help=True)
CodeArgument = Annotated[str, typer.Argument(metavar="PLAN", help="The code of a plan or an add-on.")]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A plan file with the plan in it; - is stdin.")]
OF_THE_PLAN = ("code", "name", "api_product", "description", "position", "visibility", "recommended")


@app.command("save")
def save(code: CodeArgument, file: FileArgument, *, as_json: AsJson = False) -> None:
    """Keep the terms that a plan file gives this plan as its draft. Nothing on sale changes."""
    terms = {name: value for name, value in _entry(file, code).items() if name not in OF_THE_PLAN}
    _print(put(f"/plans/{code}/draft", terms), as_json=as_json)


@app.command("show")
def show(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Show a draft: what it would change, whom that concerns, and what keeps it from being published."""
    _print(get(f"/plans/{code}/draft"), as_json=as_json)


@app.command("publish")
def publish(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Put a draft on sale. New subscriptions get it; those that run keep the version they have."""
    version = post(f"/plans/{code}/draft/publish")
    if as_json:
        print_json(version)
        return
    typer.echo(f"plan {code}: version {version['version']} is on sale: {version_summary(version)['price']}")


@app.command("discard")
def discard(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Throw a draft away."""
    discarded = delete(f"/plans/{code}/draft")
    if as_json:
        print_json(discarded)
        return
    typer.echo(f"plan {code}: the draft of version {discarded['version']['version']} is thrown away")


def _entry(file: Path, code: str) -> dict[str, Any]:
    from control_plane.catalog.yaml_text import load_yaml
    from control_plane.foundation.errors import ValidationFailedError

    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
        content = load_yaml(text)
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file}: is not UTF-8 text")
    except ValidationFailedError as error:
        fail(error.message)
    found = [entry for entry in _offers(content) if entry.get("code") == code]
    if not found:
        fail(f"{file}: has no plan or add-on {code}")
    return {str(name): _json(value) for name, value in found[0].items()}


def _offers(content: Any) -> list[dict[str, Any]]:
    lists = [content.get(name) for name in ("plans", "add_ons")] if isinstance(content, dict) else []
    entries = [entry for entries in lists if isinstance(entries, list) for entry in entries]
    return [entry for entry in entries if isinstance(entry, dict)]


def _json(value: Any) -> Any:
    """Return a value of the file for JSON: a number with a point as text, by its characters."""
    if isinstance(value, dict):
        return {name: _json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_json(part) for part in value]
    return str(value) if isinstance(value, Decimal) else value


def _print(draft: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(draft)
        return
    summary = version_summary(draft["version"])
    typer.echo(f"draft of plan {draft['plan']}, version {summary['version']}")
    for name in ("quota", "limits", "price"):
        typer.echo(f"  {name}: {summary[name]}")
    if draft["changes"]:
        typer.echo("against what is on sale:")
    print_fields_changed(draft["changes"])
    print_impact(draft["impact"])
    for problem in draft["problems"]:
        typer.echo(f"cannot be published: {problem['field']}: {problem['message']}")
