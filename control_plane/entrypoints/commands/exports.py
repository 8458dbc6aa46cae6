"""`km exports`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import download, fail, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows
from control_plane.entrypoints.commands.requests import Account, Endpoint, Outcome, RequestId, Status, Unattributed
from control_plane.entrypoints.commands.usage import End, Key, Mode, Product, Start

app = typer.Typer(help="Exports of requests and rollups, written in the background.", no_args_is_help=True)
COLUMNS = ("id", "kind", "file_format", "status", "done_rows", "total_rows", "size_bytes", "requested_at")
FIELDS = (*COLUMNS, "account_id", "start_at", "end_at", "filters", "requested_by", "expires_at", "sha256", "error")
OVER = {"done", "failed", "cancelled", "expired"}
LOOK_SECONDS = 0.5
ExportId = Annotated[str, typer.Argument(metavar="ID", help="The export's id.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the file goes.")]


@app.command("create")
def create(
    *,
    kind: Annotated[str, typer.Option(help="events (requests one by one) or rollups (hourly).")] = "events",
    file_format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    account: Account = None,
    unattributed: Unattributed = False,
    start: Start = None,
    end: End = None,
    product: Product = None,
    key: Key = None,
    mode: Mode = None,
    endpoint: Endpoint = None,
    outcome: Outcome = None,
    status: Status = None,
    request: RequestId = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Ask for an export; with --wait -o FILE, have it here when the command ends."""
    if output is not None and not wait:
        raise typer.BadParameter("-o needs --wait")
    body = {
        "kind": kind,
        "file_format": file_format,
        "account_id": account,
        "unattributed": unattributed or None,
        "start": start,
        "end": end,
        "product": product,
        "key_id": key,
        "mode": mode,
        "endpoint": endpoint,
        "outcome": outcome,
        "status": status,
        "request_id": request,
    }
    job = post("/exports", body)
    if wait:
        job = _wait(job)
    if output is not None:
        download(f"/exports/{job['id']}/file", output, sha256=job["sha256"])
    _print(job, as_json=as_json)


@app.command("list")
def list_exports(
    *,
    account: Account = None,
    status: Annotated[
        str | None, typer.Option(help="queued, running, done, failed, cancelled or expired.")
    ] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List exports, newest first."""
    found = pages("/exports", at_most=at_most, account_id=account, status=status)
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(export: ExportId, *, as_json: AsJson = False) -> None:
    """Show one export with its progress."""
    _print(get(f"/exports/{export}"), as_json=as_json)


@app.command("download")
def fetch(export: ExportId, *, output: Output = None) -> None:
    """Fetch the file of an export that is done; its SHA-256 is checked."""
    job = get(f"/exports/{export}")
    target = output or Path(f"{job['id']}.{job['file_format']}")
    download(f"/exports/{export}/file", target, sha256=job["sha256"])
    typer.echo(f"{target}: {job['done_rows']:,} rows, {job['size_bytes']:,} bytes", err=True)


@app.command("cancel")
def cancel(export: ExportId, *, as_json: AsJson = False) -> None:
    """Call off an export that is not finished."""
    _print(post(f"/exports/{export}/cancel"), as_json=as_json)


def _print(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_fields(job, FIELDS)


def _wait(job: dict[str, Any]) -> dict[str, Any]:
    """Watch the job until it is over, with a bar where people look on; fails where it did."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("counting", total=None)
        while job["status"] not in OVER:
            time.sleep(LOOK_SECONDS)
            job = get(f"/exports/{job['id']}")
            if job["done_rows"]:
                progress.update(task, description="writing", total=job["total_rows"], completed=job["done_rows"])
    if job["status"] != "done":
        fail(f"the export {job['id']} is {job['status']}: {job['error'] or 'no file'}")
    return job
