"""`km sinks`."""

from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import delete, get, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(help="Sinks: usage for other billing systems and warehouses.", no_args_is_help=True)
FIELDS = ("name", "kind", "content", "url", "file_format", "since", "paused_at", "last_sent_at", "last_error")
COLUMNS = (
    "name",
    "kind",
    "content",
    "paused_at",
    "waiting_hours",
    "failed_hours",
    "sent_hours",
    "days_written",
    "records",
    "oldest_waiting",
    "last_error",
)
HOUR_COLUMNS = ("account_id", "hour", "revision", "records", "error")
DAY_COLUMNS = ("day", "file_name", "records", "size_bytes", "sha256", "written_at")
SinkArgument = Annotated[str, typer.Argument(metavar="SINK", help="The sink's name.")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Hours from here on, RFC 3339.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Hours before, RFC 3339.")]


@app.command("create")
def create(
    name: SinkArgument,
    *,
    content: Annotated[str, typer.Option(help="events or rollups.")] = "events",
    url: Annotated[str | None, typer.Option(help="Post CloudEvents there.")] = None,
    files: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Write files of days: parquet or csv.")
    ] = None,
    since: Start = None,
    as_json: AsJson = False,
) -> None:
    """Make a sink: hours (or days) are sent once they are sealed.

    An Authorization header for --url stands in the server's environment: KM_SINK_AUTHORIZATIONS.
    """
    if (url is None) is (files is None):
        raise typer.BadParameter("give either --url or --files")
    kind = "http" if url else "files"
    body = {"name": name, "kind": kind, "content": content, "url": url, "file_format": files, "since": since}
    print_fields(post("/sinks", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List sinks, with how far each is."""
    print_rows(get("/sinks")["items"], COLUMNS, as_json=as_json)


@app.command("pause")
def pause(sink: SinkArgument, *, as_json: AsJson = False) -> None:
    """Send nothing more until it is resumed."""
    print_fields(post(f"/sinks/{sink}/pause"), FIELDS, as_json=as_json)


@app.command("resume")
def resume(sink: SinkArgument, *, as_json: AsJson = False) -> None:
    """Go on at once."""
    print_fields(post(f"/sinks/{sink}/resume"), FIELDS, as_json=as_json)


@app.command("resend")
def resend(
    sink: SinkArgument,
    *,
    sent: Annotated[bool, typer.Option("--sent", help="Also hours that were taken.")] = False,
    start: Start = None,
    end: End = None,
    as_json: AsJson = False,
) -> None:
    """Send hours again that were refused, whole, under the same ids."""
    body = {"states": ["failed", "sent"] if sent else ["failed"], "start": start, "end": end}
    answer = post(f"/sinks/{sink}/resend", body)
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{answer['hours']} hours are sent again.")


@app.command("remove")
def remove(sink: SinkArgument, *, as_json: AsJson = False) -> None:
    """End a sink for good. Files that it wrote stay."""
    print_fields(delete(f"/sinks/{sink}"), FIELDS, as_json=as_json)


@app.command("failed")
def failed(sink: SinkArgument, *, as_json: AsJson = False) -> None:
    """List hours that the other side will not take as they are."""
    print_rows(get(f"/sinks/{sink}/failed-hours")["items"], HOUR_COLUMNS, as_json=as_json)


@app.command("days")
def days(sink: SinkArgument, *, as_json: AsJson = False) -> None:
    """List a sink's files, the latest day first."""
    print_rows(get(f"/sinks/{sink}/days")["items"], DAY_COLUMNS, as_json=as_json)
