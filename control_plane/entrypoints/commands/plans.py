"""`km plans`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, get, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(help="Plans: what is sold, and plans as code.", no_args_is_help=True)
COLUMNS = ("position", "code", "name", "api_product", "version", "quota", "limits", "price")
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
FIELDS = ("id", "code", "name", "api_product", "position", "visibility", "recommended", "archived_at")
PER = {1_000: "s", 60_000: "min", 3_600_000: "h", 86_400_000: "day"}
PlanFileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A plan file, like plans.yml; - is stdin.")]
# finds the documents to send along; the server reads the file itself and names what is missing
_OPENAPI = re.compile(r"^\s*(?:-\s+)?openapi:\s*[\"']?([^\"'#\n]+?)[\"']?\s*(?:#.*)?$", re.MULTILINE)


@app.command("diff")
def diff(file: PlanFileArgument, *, as_json: AsJson = False) -> None:
    """Say what applying a plan file would change. Changes nothing."""
    _print_changes(post("/plans/diff", _read(file)), nothing="Nothing would change.", as_json=as_json)


@app.command("apply")
def apply(file: PlanFileArgument, *, as_json: AsJson = False) -> None:
    """Make the catalogue as the file says, all or nothing."""
    _print_changes(post("/plans/apply", _read(file)), nothing="Nothing changed.", as_json=as_json)


@app.command("export")
def export() -> None:
    """Print what is on sale as a plan file; applying it changes nothing."""
    typer.echo(get("/plan-file")["plan_file"], nl=False)


@app.command("list")
def list_(
    *,
    product: Annotated[str | None, typer.Option(help="Only plans of one API product.")] = None,
    as_json: AsJson = False,
) -> None:
    """List plans in the order of the price list, with the terms on sale."""
    plans = get("/plans", product=product)["items"]
    if as_json:
        print_json(plans)
        return
    print_rows([plan | _summary(plan["published"]) for plan in plans], COLUMNS)


@app.command("show")
def show(
    code: Annotated[str, typer.Argument(metavar="PLAN", help="The plan's code.")], *, as_json: AsJson = False
) -> None:
    """Show a plan with all its versions."""
    plan = get(f"/plans/{code}")
    if as_json:
        print_json(plan)
        return
    print_fields(plan, FIELDS)
    typer.echo()
    print_rows([version | _summary(version) for version in plan["versions"]], VERSION_COLUMNS)


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


def _print_changes(diff: dict[str, Any], *, nothing: str, as_json: bool) -> None:
    if as_json:
        print_json(diff)
        return
    created = {
        change["code"]
        for change in diff["changes"]
        if (change["kind"], change["entity_type"]) == ("create", "plan")
    }
    for change in diff["changes"]:
        # that a new plan has a first version goes without saying
        if change["kind"] != "new_version" or change["code"] not in created:
            typer.echo(change["text"])
    if not diff["changes"]:
        typer.echo(nothing)
    for name in diff["left_alone"]:
        typer.echo(f"left alone, not in the file: {name}", err=True)


def _summary(version: dict[str, Any] | None) -> dict[str, str]:
    if version is None:
        return {"version": "-", "quota": "-", "limits": "-", "price": "not on sale"}
    quota = "none" if version["quota_units"] is None else f"{version['quota_units']:,}"
    if version["quota_units"] is not None:
        quota += " then refused" if version["quota_hard"] else " then charged" if version["prices"] else ""
    if version["quota_cap_units"] is not None:
        quota += f", refused above {version['quota_cap_units']:,}"
    limits = [f"{w['limit']:,}/{PER.get(w['window_ms'], str(w['window_ms']) + ' ms')}" for w in version["windows"]]
    if version["concurrency"] is not None:
        limits.append(f"{version['concurrency']['limit']:,} at a time")
    prices = [_price(price, version) for price in version["prices"]]
    free = "by quote" if version["by_quote"] else "free"
    return {
        "version": str(version["version"]),
        "quota": quota,
        "limits": ", ".join(limits) or "-",
        "price": " + ".join(prices) or free,
    }


def _price(price: dict[str, Any], version: dict[str, Any]) -> str:
    params, currency, meter = price["params"], version["currency"], price["meter"]
    if price["model"] == "flat":
        return f"{params['amount']} {currency}/{version['interval']}"
    if price["model"] == "package":
        return f"{params['amount']} {currency}/{params['size']:,} {meter}"
    if "unit_amount" in params:
        return f"{params['unit_amount']} {currency}/{meter.removesuffix('s')}"
    return f"{price['model']} on {meter}"
