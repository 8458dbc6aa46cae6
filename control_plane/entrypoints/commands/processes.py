"""`km serve`, `km api`, `km worker`: the processes of the control plane."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import typer

from control_plane.entrypoints.commands.client import fail

LogLevel = Annotated[str, typer.Option(envvar="KM_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="In place of KM_PORT; 0 picks a free one.")]
Upgrade = Annotated[bool, typer.Option("--upgrade", help="Bring the schema to the newest version first.")]
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def serve(*, port: Port = None, upgrade: Upgrade = False, log_level: LogLevel = "INFO") -> None:
    """Run API and workers in one process, with the embedded event store or a server.

    Settings come from the environment: KM_DATABASE_URL, KM_REDIS_URL, KM_CLICKHOUSE_DSN, KM_GATEWAY_SECRET and
    others. Listens on KM_HOST (127.0.0.1) and KM_PORT (8090).
    """
    _run("serve", port=port, upgrade=upgrade, log_level=log_level)


def api(*, port: Port = None, log_level: LogLevel = "INFO") -> None:
    """Run the API alone; as many as wanted, with an event store server."""
    _run("api", port=port, upgrade=False, log_level=log_level)


def worker(*, port: Port = None, log_level: LogLevel = "INFO") -> None:
    """Run the workers alone; as many as wanted, with an event store server. Answers health and metrics."""
    _run("worker", port=port, upgrade=False, log_level=log_level)


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Import without looking for garbage, which takes a fifth of the time: what is imported stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(part: Literal["serve", "api", "worker"], *, port: int | None, upgrade: bool, log_level: str) -> None:
    from control_plane.entrypoints import migrations
    from control_plane.entrypoints.settings import SettingsError, read_settings
    from control_plane.foundation.log import configure_logging

    if log_level.upper() not in _LEVELS:
        raise typer.BadParameter(f"--log-level: must be one of {', '.join(_LEVELS)}")
    configure_logging(level=log_level.upper())
    try:
        # before the rest is loaded: what is wrong with them is told at once
        settings = read_settings()
    except SettingsError as error:
        fail(str(error))
    if port is not None:
        settings = settings.model_copy(update={"port": port})
    if upgrade:
        migrations.upgrade(settings.database_url)
    with _collecting_nothing():
        from control_plane.entrypoints import server
    parts = {"serve": server.SERVE, "api": server.API, "worker": server.WORKER}
    try:
        asyncio.run(server.run_server(settings, parts[part], ready=_say_address))
    except server.StartError as error:
        fail(str(error))


def _say_address(address: str) -> None:
    typer.echo(f"listening on {address}")
