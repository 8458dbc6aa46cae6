"""`km plans`: what is sold, and plans as code."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands import comparisons
from control_plane.entrypoints.commands.client import (
    another_server,
    delete,
    fail,
    get,
    patch,
    post,
)
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.plan_drafts import app as drafts
from control_plane.entrypoints.commands.plan_prices import COLUMNS as PRICE_COLUMNS
from control_plane.entrypoints.commands.plan_prices import price_rows
from control_plane.entrypoints.commands.plan_tables import print_changes, version_summary

app = typer.Typer(help="Plans and add-ons: what is sold, and plans as code.", no_args_is_help=True)
app.add_typer(drafts, name="draft")
app.add_typer(comparisons.app)
COLUMNS = ("position", "code", "name", "kind", "api_product", "version", "quota", "limits", "price")
VERSION_COLUMNS = (
    "version",
    "status",
    "quota",
    "limits",
    "price",
    "on_past_due",
    "event_retention_days",
    "published_at",
)
OF_A_VERSION = ("quota_on_change", "entitlements", "features", "sla_level", "support_level", "billed_by")
FIELDS = (
    "id",
    "code",
    "kind",
    "name",
    "description",
    "api_product",
    "position",
    "visibility",
    "recommended",
    "archived_at",
)
PlanFileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A plan file, like plans.yml; - is stdin.")]
CodeArgument = Annotated[str, typer.Argument(metavar="PLAN", help="The code of a plan or an add-on.")]
Position = Annotated[int | None, typer.Option(help="Place on the pricing page; the last unless said.")]
# finds the documents to send along; the server reads the file itself and names what is missing
_OPENAPI = re.compile(r"^\s*(?:-\s+)?openapi:\s*[\"']?([^\"'#\n]+?)[\"']?\s*(?:#.*)?$", re.MULTILINE)


@app.command("diff")
def diff(file: PlanFileArgument, *, as_json: AsJson = False) -> None:
    """Say what applying a plan file would change, and whom that concerns. Changes nothing."""
    print_changes(post("/plans/diff", _read(file)), nothing="Nothing would change.", as_json=as_json)


@app.command("apply")
def apply(file: PlanFileArgument, *, as_json: AsJson = False) -> None:
    """Make the catalogue as the file says, all or nothing."""
    print_changes(post("/plans/apply", _read(file)), nothing="Nothing changed.", as_json=as_json)


@app.command("export")
def export(
    *,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it here, OpenAPI documents beside it.")
    ] = None,
) -> None:
    """Print what is on sale as a plan file; applying it changes nothing."""
    exported = get("/plan-file")
    if to is not None:
        _write(to, exported["plan_file"])
        for name, text in exported["documents"].items():
            _write(to.parent / name, text)
        return
    if exported["documents"]:
        names = ", ".join(exported["documents"])
        fail(f"the plan file names OpenAPI documents ({names}): write all of them with --to plans.yml")
    typer.echo(exported["plan_file"], nl=False)


@app.command("promote")
def promote(
    *,
    to: Annotated[str, typer.Option(metavar="URL", help="The server to bring it to; KM_TO_TOKEN is its token.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Bring what is on sale on one server (--url, KM_URL) to another, after showing what would change there."""
    exported = get("/plan-file")
    body = {"plan_file": exported["plan_file"], "documents": exported["documents"]}
    with another_server(to):
        found = post("/plans/diff", body)
        print_changes(found, nothing="Nothing would change.", as_json=False)
        if not found["changes"]:
            return
        if not yes:
            typer.confirm(f"Make it so on {to}?", abort=True)
        post("/plans/apply", body)
    typer.echo(f"applied on {to}")


@app.command("create")
def create(
    code: CodeArgument,
    *,
    name: Annotated[str, typer.Option(help="What people read.")],
    product: Annotated[str, typer.Option(help="The code of its API product.")],
    add_on: Annotated[bool, typer.Option("--add-on", help="Sold beside a plan.")] = False,
    description: str = "",
    position: Position = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Only administrators sell it.")] = False,
    recommended: Annotated[bool, typer.Option("--recommended", help="Highlighted on the pricing page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a plan or an add-on without terms; `km plans draft` gives it some."""
    body = {
        "code": code,
        "kind": "add_on" if add_on else "plan",
        "name": name,
        "api_product": product,
        "description": description,
        "position": position,
        "visibility": "hidden" if hidden else "public",
        "recommended": recommended,
    }
    print_fields(post("/plans", body), FIELDS, as_json=as_json)


@app.command("update")
def update(
    code: CodeArgument,
    *,
    name: str | None = None,
    description: str | None = None,
    position: Annotated[int | None, typer.Option(help="Place on the pricing page.")] = None,
    hidden: Annotated[
        bool | None, typer.Option("--hidden/--public", help="Whether only administrators sell it.")
    ] = None,
    recommended: Annotated[
        bool | None, typer.Option("--recommended/--not-recommended", help="Whether it is highlighted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what a plan shows. Its terms change by publishing a new version."""
    visibility = None if hidden is None else "hidden" if hidden else "public"
    given = {"name": name, "description": description, "position": position}
    given |= {"visibility": visibility, "recommended": recommended}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise typer.BadParameter("give at least one option to change")
    print_fields(patch(f"/plans/{code}", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(
    *,
    product: Annotated[str | None, typer.Option(help="Only plans of one API product.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List plans, then add-ons, in the order of the price list, with the terms on sale."""
    plans = get("/plans", product=product, archived=True if archived else None)["items"]
    if as_json:
        print_json(plans)
        return
    print_rows([plan | version_summary(plan["published"], kind=plan["kind"]) for plan in plans], COLUMNS)


@app.command("show")
def show(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Show a plan with all its versions, and the prices of the latest in every currency."""
    plan = get(f"/plans/{code}")
    if as_json:
        print_json(plan)
        return
    print_fields(plan, FIELDS)
    typer.echo()
    print_rows(
        [version | version_summary(version, kind=plan["kind"]) for version in plan["versions"]], VERSION_COLUMNS
    )
    latest = max(plan["versions"], key=lambda one: int(one["version"]), default=None)
    if latest is None or not latest["prices"]:
        return
    typer.echo(f"\nVersion {latest['version']}")
    print_fields(latest, OF_A_VERSION)
    typer.echo()
    print_rows(price_rows(latest), PRICE_COLUMNS)


@app.command("archive")
def archive(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Take a plan or an add-on off sale; whoever has it keeps it."""
    print_fields(post(f"/plans/{code}/archive"), FIELDS, as_json=as_json)


@app.command("unarchive")
def unarchive(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Put an archived plan or add-on on sale again."""
    print_fields(post(f"/plans/{code}/unarchive"), FIELDS, as_json=as_json)


@app.command("delete")
def delete_(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Delete a plan or an add-on that no subscription ever had."""
    deleted: dict[str, Any] = delete(f"/plans/{code}")
    if as_json:
        print_json(deleted)
        return
    typer.echo(f"deleted {deleted['code']}")


def _read(file: Path) -> dict[str, Any]:
    if str(file) == "-":
        return {"plan_file": typer.get_text_stream("stdin").read()}
    text = _read_text(file)
    names = [name for name in _OPENAPI.findall(text) if (file.parent / name).is_file()]
    return {"plan_file": text, "documents": {name: _read_text(file.parent / name) for name in names}}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file}: is not UTF-8 text")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    typer.echo(f"wrote {file}", err=True)
