"""`km events`: single requests, and the store that holds them."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from control_plane.entrypoints.commands import usage
from control_plane.entrypoints.commands.client import fail, get
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from control_plane.usage.store.copying import Progress

TABLE_COLUMNS = (
    "table",
    "rows",
    "bytes",
    "bytes_per_row",
    "partitions",
    "oldest_day",
    "newest_day",
    "expired_rows",
)
REPORT_FIELDS = ("events", "dead_letters", "days", "days_copied")
Dsn = Annotated[str, typer.Option("--from", metavar="DSN", help="The store to copy, like chdb:///directory.")]
TargetDsn = Annotated[
    str, typer.Option("--to", metavar="DSN", help="Where to, like clickhouse://user:password@host:8123/database.")
]


class EventCommands(TyperGroup):
    """`km events ACCOUNT` is `km events show ACCOUNT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take what names no command as an argument of `show`."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=EventCommands, help="An account's requests: `km events [ACCOUNT]`; and the store that holds them."
)
app.command("show")(usage.events)


@app.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Say how much the event store holds, from which days, and what is past its retention."""
    answer = get("/event-store")
    if as_json:
        print_json(answer)
        return
    print_rows(
        [
            table | {"bytes_per_row": f"{table['bytes'] / table['rows']:.1f}" if table["rows"] else None}
            for table in answer["tables"]
        ],
        TABLE_COLUMNS,
    )


@app.command("copy")
def copy(
    source: Dsn,
    target: TargetDsn,
    *,
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster", envvar="KM_CLICKHOUSE_CLUSTER", help="A cluster that the target's server knows."
        ),
    ] = "",
    before: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="Only days before this one (UTC).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy one event store into another, day by day, and compare the two.

    Stop the installation first, or copy old days with --before. What is there already is not copied again, so an
    interrupted copy is simply started once more. Speaks to the two stores, not to the server.
    """
    from dataclasses import asdict

    from clickhouse_connect.driver.exceptions import Error as ClickHouseError

    from control_plane.foundation.clock import utc_now
    from control_plane.usage.store.client import EventStoreConfig, UnknownClusterError
    from control_plane.usage.store.copying import CopyError, copy_store

    try:
        with _progress() as tell:
            report = copy_store(
                EventStoreConfig(dsn=source),
                EventStoreConfig(dsn=target, cluster=cluster),
                now=utc_now(),
                before=before.date() if before else None,
                tell=tell,
            )
    except (CopyError, UnknownClusterError) as error:
        fail(str(error))
    except ClickHouseError as error:
        fail(str(error).splitlines()[0])
    print_fields(asdict(report), REPORT_FIELDS, as_json=as_json)


def _progress() -> "AbstractContextManager[Callable[[Progress], None]]":
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress as Bar

    @contextmanager
    def to_people() -> "Iterator[Callable[[Progress], None]]":
        with Bar(console=Console(stderr=True)) as bar:
            task = bar.add_task("reading", total=None)

            def tell(progress: "Progress") -> None:
                bar.update(
                    task,
                    description=f"{progress.table} {progress.day}",
                    completed=progress.copied,
                    total=progress.rows,
                )

            yield tell

    @contextmanager
    def to_a_log() -> "Iterator[Callable[[Progress], None]]":
        told = set()

        def tell(progress: "Progress") -> None:
            if (progress.table, progress.day) not in told:
                told.add((progress.table, progress.day))
                typer.echo(f"{progress.table} {progress.day}, {progress.copied} of {progress.rows} rows", err=True)

        yield tell

    return to_people() if sys.stderr.isatty() else to_a_log()
