"""`km products`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import delete, fail, get, patch, post, put
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.values import read_number, read_pairs

app = typer.Typer(help="API products: routes that are sold together.", no_args_is_help=True)
FIELDS = (
    "id",
    "code",
    "name",
    "description",
    "service",
    "routes",
    "endpoints",
    "route_units",
    "unit_headers",
    "unit_maximums",
    "replay_header",
    "has_openapi_document",
    "created_at",
    "archived_at",
)
COLUMNS = ("code", "name", "service", "routes", "created_at")
CodeArgument = Annotated[str, typer.Argument(metavar="PRODUCT", help="The API product's code.")]
Route = Annotated[list[str] | None, typer.Option(help="Name of a Kong route; may be repeated.")]
RouteUnits = Annotated[list[str] | None, typer.Option(help="Quota units of a call, ROUTE=UNITS; may be repeated.")]
UnitHeader = Annotated[
    list[str] | None, typer.Option(help="The upstream's header of a named unit, UNIT=HEADER; may be repeated.")
]
UnitMaximum = Annotated[
    list[str] | None,
    typer.Option(help="The most that a call can report, ROUTE:UNIT=NUMBER, ROUTE may be *; may be repeated."),
]
ReplayHeader = Annotated[
    str | None, typer.Option(help="The upstream's header of repeated answers; '' if it has none.")
]
Endpoint = Annotated[
    list[str] | None, typer.Option(help="Told apart in usage figures, like 'GET /v1/cities/{city}'; repeatable.")
]


@app.command("create")
def create(
    code: CodeArgument,
    *,
    name: Annotated[str, typer.Option(help="What people read.")],
    service: Annotated[str, typer.Option(help="Name of the Kong service.")],
    route: Annotated[list[str], typer.Option(help="Name of a Kong route; may be repeated.")],
    description: str = "",
    endpoint: Endpoint = None,
    route_units: RouteUnits = None,
    unit_header: UnitHeader = None,
    unit_maximum: UnitMaximum = None,
    replay_header: ReplayHeader = None,
    as_json: AsJson = False,
) -> None:
    """Make an API product of routes that the base kong.yml has."""
    body = {"code": code, "name": name, "description": description, "service": service}
    body |= _parts(route, endpoint, route_units, unit_header) | _rules(unit_maximum, replay_header)
    print_fields(post("/products", body), FIELDS, as_json=as_json)


@app.command("update")
def update(
    code: CodeArgument,
    *,
    name: str | None = None,
    description: str | None = None,
    service: str | None = None,
    route: Route = None,
    endpoint: Endpoint = None,
    route_units: RouteUnits = None,
    unit_header: UnitHeader = None,
    unit_maximum: UnitMaximum = None,
    replay_header: ReplayHeader = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; a list that is given replaces the whole list."""
    plain = {"name": name, "description": description, "service": service}
    body = {field: value for field, value in plain.items() if value is not None}
    body |= _parts(route, endpoint, route_units, unit_header) | _rules(unit_maximum, replay_header)
    if not body:
        raise typer.BadParameter("give at least one option to change")
    print_fields(patch(f"/products/{code}", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List API products."""
    print_rows(get("/products")["items"], COLUMNS, as_json=as_json)


@app.command("show")
def show(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Show one API product."""
    print_fields(get(f"/products/{code}"), FIELDS, as_json=as_json)


@app.command("archive")
def archive(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Take an API product away whose subscriptions are all over; its routes are no longer protected."""
    print_fields(post(f"/products/{code}/archive"), FIELDS, as_json=as_json)


@app.command("unarchive")
def unarchive(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Bring an API product back from the archive, with its plans."""
    print_fields(post(f"/products/{code}/unarchive"), FIELDS, as_json=as_json)


@app.command("delete")
def delete_(code: CodeArgument, *, as_json: AsJson = False) -> None:
    """Delete an API product without plans that nobody ever subscribed to."""
    deleted: dict[str, Any] = delete(f"/products/{code}")
    if as_json:
        print_json(deleted)
        return
    typer.echo(f"deleted {deleted['code']}")


@app.command("openapi")
def openapi(
    code: CodeArgument,
    *,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep this document with the product.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the document away; endpoints stay.")] = False,
) -> None:
    """Print the OpenAPI document of an API product, or keep another one: its endpoints are its operations."""
    path = f"/products/{code}/openapi"
    if remove:
        delete(path)
    elif file is None:
        typer.echo(get(path)["document"], nl=False)
    else:
        try:
            product = put(path, {"document": file.read_text(encoding="utf-8")})
        except OSError as error:
            fail(f"{file}: {error.strerror}")
        except UnicodeDecodeError:
            fail(f"{file}: is not UTF-8 text")
        typer.echo(f"{code}: {len(product['endpoints'])} endpoints")


def _parts(
    route: list[str] | None,
    endpoint: list[str] | None,
    route_units: list[str] | None,
    unit_header: list[str] | None,
) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if route:
        parts["routes"] = route
    if endpoint:
        pairs = [text.partition(" ") for text in endpoint]
        parts["endpoints"] = [{"method": method, "path_template": path.strip()} for method, _, path in pairs]
    if route_units:
        parts["route_units"] = {
            name: read_number(f"--route-units {name}", value)
            for name, value in read_pairs("--route-units", route_units)
        }
    if unit_header:
        parts["unit_headers"] = dict(read_pairs("--unit-header", unit_header))
    return parts


def _rules(unit_maximum: list[str] | None, replay_header: str | None) -> dict[str, Any]:
    rules: dict[str, Any] = {} if replay_header is None else {"replay_header": replay_header}
    if unit_maximum:
        maximums: dict[str, dict[str, int]] = {}
        for name, value in read_pairs("--unit-maximum", unit_maximum):
            route, colon, unit = name.rpartition(":")
            if not colon:
                raise typer.BadParameter("--unit-maximum: use ROUTE:UNIT=NUMBER")
            maximums.setdefault(route, {})[unit] = read_number(f"--unit-maximum {name}", value)
        rules["unit_maximums"] = maximums
    return rules
