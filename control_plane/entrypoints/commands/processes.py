"""`km serve`, `km api`, `km worker`: the processes of the control plane."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.entrypoints.commands.client import fail

if TYPE_CHECKING:
    from control_plane.entrypoints.server import Part

LogLevel = Annotated[str, typer.Option(envvar="KM_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="In place of KM_PORT; 0 picks a free one.")]
Upgrade = Annotated[bool, typer.Option("--upgrade", help="Bring the schema to the newest version first.")]
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def serve(*, port: Port = None, upgrade: Upgrade = False, log_level: LogLevel = "INFO") -> None:
    """Run API and workers in one process, with the embedded event store or a server.

    Settings come from the environment: KM_DATABASE_URL, KM_REDIS_URL, KM_CLICKHOUSE_DSN, KM_GATEWAY_SECRET and
    others. Listens on KM_HOST (127.0.0.1) and KM_PORT (8090).
    """
    with _collecting_nothing():
        from control_plane.entrypoints.server import SERVE

    _run(SERVE, port=port, upgrade=upgrade, log_level=log_level)


def api(*, port: Port = None, log_level: LogLevel = "INFO") -> None:
    """Run the API alone; as many as wanted, with an event store server."""
    with _collecting_nothing():
        from control_plane.entrypoints.server import API

    _run(API, port=port, upgrade=False, log_level=log_level)


def worker(*, port: Port = None, log_level: LogLevel = "INFO") -> None:
    """Run the workers alone; as many as wanted, with an event store server. Answers health and metrics."""
    with _collecting_nothing():
        from control_plane.entrypoints.server import WORKER

    _run(WORKER, port=port, upgrade=False, log_level=log_level)


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Import without looking for garbage, which takes a fifth of the time: what is imported stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(part: "Part", *, port: int | None, upgrade: bool, log_level: str) -> None:
    from control_plane.entrypoints import migrations
    from control_plane.entrypoints.server import StartError, run_server
    from control_plane.entrypoints.settings import SettingsError, read_settings
    from control_plane.foundation.log import configure_logging

    if log_level.upper() not in _LEVELS:
        raise typer.BadParameter(f"--log-level: must be one of {', '.join(_LEVELS)}")
    configure_logging(level=log_level.upper())
    try:
        settings = read_settings()
        if port is not None:
            settings = settings.model_copy(update={"port": port})
        if upgrade:
            migrations.upgrade(settings.database_url)
        asyncio.run(run_server(settings, part, ready=lambda address: typer.echo(f"listening on {address}")))
    except (SettingsError, StartError) as error:
        fail(str(error))
