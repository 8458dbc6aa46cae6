"""A running `km serve` over real stores, and `km` against it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from control_plane.entrypoints.cli import create_cli
from devstack.stores.event_store import event_store_dsn
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey

REPOSITORY = Path(__file__).parents[3]
STARTS_WITHIN_SECONDS = 60
Km = Callable[..., Result]


def run_km(*arguments: str, env: dict[str, str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the real program in a process of its own."""
    command = [sys.executable, "-m", "control_plane.entrypoints.cli", *arguments]
    return subprocess.run(
        command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False
    )


@dataclass
class ServerProcess:
    """`km serve` as a child; its log is in `log_path`."""

    env: dict[str, str]
    log_path: Path
    arguments: tuple[str, ...] = ("serve", "--port", "0")
    url: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "control_plane.entrypoints.cli", *self.arguments],
                env=self.env,
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log_path.read_text()
        self.url = line.removeprefix("listening on ").strip()

    def readiness(self) -> tuple[int, dict]:
        answer = httpx.get(f"{self.url}/readyz", timeout=30)
        return answer.status_code, answer.json()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while self.readiness()[0] != 200:
            assert time.monotonic() < deadline, self.log_path.read_text()[-4000:]
            time.sleep(0.1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.closing(self.process.stdout):
            return self.process.wait(timeout=60)


def a_base_config(path: Path) -> Path:
    """The shipped kong.yml with the services and routes of the API products that tests make."""
    sold = {"maps": ["maps"], "tiles": ["tiles"], "metered": ["metered"], "caps": ["caps-chat", "caps-status"]}
    services = "".join(
        f"  - {{name: {service}, url: 'http://127.0.0.1:9001', routes: [{', '.join(map(a_route, routes))}]}}\n"
        for service, routes in sold.items()
    )
    shipped = (REPOSITORY / "kong.yml").read_text()
    path.write_text(
        shipped.replace("\nservices:\n", f"\nservices:\n{services}").replace(
            "\nplugins:\n", "\nroutes:\n  - {name: forecasts, service: weather, paths: [/forecasts]}\n\nplugins:\n"
        )
    )
    return path


def a_route(name: str) -> str:
    return f"{{name: {name}, paths: [/{name}]}}"


@pytest.fixture(scope="module")
def server_env(
    postgres_server: EmbeddedPostgres,
    migrated_template: str,
    valkey_server: EmbeddedValkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, str]]:
    """Settings of a server of this module's own; `KM_TOKEN` is an owner's."""
    directory = tmp_path_factory.mktemp("km")
    name = f"cli_{os.getpid()}_{time.time_ns()}"
    database_url = postgres_server.create_database(name, template=migrated_template)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "KM_DATABASE_URL": database_url.replace("postgresql://", "postgresql+psycopg://", 1),
        "KM_REDIS_URL": valkey_server.url,
        "KM_CLICKHOUSE_DSN": event_store_dsn(directory / "events"),
        "KM_GATEWAY_SECRET": "for-tests-only-for-tests-only-for-tests",
        "KM_KONG_CONFIG": str(a_base_config(directory / "kong.yml")),
        "KM_USAGE_SPOOL_PATH": "/var/spool/kong-monetize/usage.log",
    }
    created = run_km("db", "create-token", env=env)
    assert created.returncode == 0, created.stderr
    yield env | {"KM_TOKEN": created.stdout.strip()}
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def server(server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(server_env, tmp_path_factory.mktemp("log") / "server.log")
    process.start()
    process.wait_until_ready()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def own_commands() -> typer.Typer:
    """Made once: nothing of a call stays in it."""
    return create_cli(own_only=True)


@pytest.fixture
def km(server: ServerProcess, own_commands: typer.Typer) -> Km:
    """Runs a command in this process against the server."""
    cli, runner = own_commands, CliRunner()

    def run(*arguments: str, stdin: str | None = None, **env: str | None) -> Result:
        variables = {"KM_URL": server.url, "KM_TOKEN": server.env["KM_TOKEN"], **env}
        return runner.invoke(cli, list(arguments), env=variables, input=stdin)

    return run
