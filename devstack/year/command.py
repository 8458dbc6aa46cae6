"""`km year`: plays the year on stores of its own, and prints how it compares."""

import asyncio
import logging
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from control_plane.entrypoints.migrations import upgrade
from devstack.stores.event_store import event_store_dsn
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from devstack.year.model import END, START
from devstack.year.page import render_page
from devstack.year.run import Year, run_year
from devstack.year.terminal import print_year

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def play_year(console: Console, *, page: Path | None = None) -> bool:
    """Play, print and, with `page`, write the year. Return whether nothing differs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    directory = Path(tempfile.mkdtemp(prefix="km-year-"))
    postgres = EmbeddedPostgres(directory / "postgres", fast=True)
    valkey = EmbeddedValkey(directory / "valkey")
    try:
        with console.status("starting stores ..."):
            postgres.start()
            valkey.start()
            url = postgres.create_database("year").replace("postgresql://", "postgresql+psycopg://", 1)
            upgrade(url)
        year = _played(console, url, valkey.url, event_store_dsn(directory / "events"))
    finally:
        with _undisturbed(), ExitStack() as stack:
            # last first; what cannot be stopped does not keep the rest from it
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            stack.callback(postgres.destroy)
            stack.callback(valkey.stop)
    print_year(console, year)
    if page is not None:
        page.write_text(render_page(year))
    return year.found.ok


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hear no signals: a second Ctrl-C would leave half of what the first one lets us tidy up."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _played(console: Console, database_url: str, redis_url: str, clickhouse_dsn: str) -> Year:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{START:%d %B %Y}", total=(END - START).days)

        def told(moment: datetime) -> None:
            progress.update(task, completed=(moment - START).days, description=f"{moment:%d %B %Y}")

        return asyncio.run(
            run_year(database_url=database_url, redis_url=redis_url, clickhouse_dsn=clickhouse_dsn, told=told)
        )
