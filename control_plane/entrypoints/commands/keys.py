"""`km keys`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.accounts import AccountArgument
from control_plane.entrypoints.commands.client import get, pages, patch, post
from control_plane.entrypoints.commands.key_import import import_keys
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.values import parse_duration, parse_limits

app = typer.Typer(help="API keys.", no_args_is_help=True)
app.command("import")(import_keys)
FIELDS = (
    "id",
    "account_id",
    "name",
    "mode",
    "hint",
    "origin",
    "status",
    "scopes",
    "windows",
    "quota_units",
    "ip_ranges",
    "expires_at",
    "created_at",
    "revoked_at",
)
COLUMNS = ("id", "name", "mode", "hint", "status", "scopes", "expires_at", "created_at")
KeyArgument = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id (not the key).")]
Scope = Annotated[list[str] | None, typer.Option(help="full, read_only or a name of your own; may be repeated.")]
Limit = Annotated[list[str] | None, typer.Option(help="Like 5/second or 100/minute; may be repeated.")]
IpRange = Annotated[list[str] | None, typer.Option(help="Address or CIDR range; may be repeated.")]
Quota = Annotated[int | None, typer.Option(min=1, help="Its share of the plan's quota.")]
Expires = Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339, like 2027-01-31T00:00:00Z.")]


@app.command("issue")
def issue(
    account: AccountArgument,
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    mode: Annotated[str, typer.Option(help="live or test.")] = "live",
    scope: Scope = None,
    limit: Limit = None,
    ip_range: IpRange = None,
    quota_units: Quota = None,
    expires_at: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key and print it. It is shown this once."""
    body = {"name": name, "mode": mode, **_restrictions(scope, limit, ip_range, quota_units, expires_at)}
    _print_issued(post(f"/accounts/{account}/keys", body), as_json=as_json)


@app.command("list")
def list_(
    account: AccountArgument,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200,
    *,
    as_json: AsJson = False,
) -> None:
    """List an account's keys, newest first."""
    print_rows(pages(f"/accounts/{account}/keys", at_most=at_most), COLUMNS, as_json=as_json)


@app.command("show")
def show(key: KeyArgument, *, as_json: AsJson = False) -> None:
    """Show one key with its hash, which a plugin's `anonymous` option takes; never its text."""
    print_fields(get(f"/keys/{key}"), (*FIELDS, "key_hash"), as_json=as_json)


@app.command("update")
def update(
    key: KeyArgument,
    *,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    scope: Scope = None,
    limit: Limit = None,
    ip_range: IpRange = None,
    quota_units: Quota = None,
    expires_at: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; it holds from the key's next call on."""
    body = _restrictions(scope, limit, ip_range, quota_units, expires_at)
    if name is not None:
        body["name"] = name
    if not body:
        raise typer.BadParameter("give at least one option to change")
    print_fields(patch(f"/keys/{key}", body), FIELDS, as_json=as_json)


@app.command("rotate")
def rotate(
    key: KeyArgument,
    overlap: Annotated[str, typer.Option(help="How long the old key still works: 0, 30m, 24h, 7d.")] = "0",
    *,
    as_json: AsJson = False,
) -> None:
    """Issue a key like this one and end the old one, now or after an overlap."""
    body = {"overlap_seconds": parse_duration(overlap)}
    _print_issued(post(f"/keys/{key}/rotate", body), as_json=as_json)


@app.command("revoke")
def revoke(key: KeyArgument, *, as_json: AsJson = False) -> None:
    """Refuse the key from its next call on, on every gateway node."""
    print_fields(post(f"/keys/{key}/revoke"), FIELDS, as_json=as_json)


def _restrictions(
    scope: list[str] | None,
    limit: list[str] | None,
    ip_range: list[str] | None,
    quota_units: int | None,
    expires_at: str | None,
) -> dict[str, Any]:
    given = {
        "scopes": scope or None,
        "windows": parse_limits(limit) if limit else None,
        "ip_ranges": ip_range or None,
        "quota_units": quota_units,
        "expires_at": expires_at,
    }
    return {name: value for name, value in given.items() if value is not None}


def _print_issued(issued: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(issued)
        return
    print_fields(issued["key"], ("id", "name", "mode", "scopes", "expires_at"))
    typer.echo(f"\n{issued['text']}\n")
    typer.echo("Shown this once; only its hash is kept.", err=True)
