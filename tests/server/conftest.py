"""Starts the real server as a process of its own, the way Kong does, and takes it down by pid."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server.kong_client import KongClient

ROOT = Path(__file__).parents[2]
PLUGINS = Path(__file__).parent / "plugins"
DEADLINE_SECONDS = 30.0
LIMITED = (
    "import os, resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def eventually(check: Callable[[], Any], what: str = "condition") -> Any:
    """Return the check's first true value; fails after half a minute."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            if value := check():
                return value
        time.sleep(0.02)
    raise AssertionError(f"did not happen: {what}")


class RunningServer:
    def __init__(
        self, directory: Path, options: list[str], environment: dict[str, str], descriptors: int | None = None
    ) -> None:
        self.directory = directory
        self.socket = directory / "km.sock"
        self.log_path = directory / f"stderr-{time.monotonic_ns()}"
        command = [
            sys.executable,
            "-m",
            "kong_plugins.server.main",
            "--socket",
            str(self.socket),
            "--metrics-port",
            "0",
        ]

        if descriptors is not None:
            command = [sys.executable, "-c", LIMITED, str(descriptors), *command]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *options], cwd=ROOT, stderr=log, stdout=log, env=os.environ | environment
            )
        self.pid = self.process.pid
        self.clients: list[KongClient] = []

    def wait_ready(self, workers: int) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log_text()
            workers_ready = len(self.messages("worker is ready")) >= workers
            return workers_ready and bool(self.messages("plugin server is ready")) and bool(self.port)

        eventually(ready, "the server is ready")

    def client(self) -> KongClient:
        client = KongClient(self.socket)
        self.clients.append(client)
        return client

    def workers(self) -> list[int]:
        return sorted(child.pid for child in psutil.Process(self.pid).children())

    def log_text(self) -> str:
        return self.log_path.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_text().splitlines() if line.endswith("}")]

    def messages(self, text: str) -> list[dict[str, Any]]:
        return [line for line in self.log_lines() if line["msg"] == text]

    @property
    def port(self) -> int | None:
        lines = self.messages("metrics port is open")
        return lines[-1]["port"] if lines else None

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of all samples of that name that have those labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{key}="{one}"' in series for key, one in labels.items()):
                total += float(value)
        return total

    def stop(self) -> int:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


StartServer = Callable[..., RunningServer]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a unix socket's has 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="kms"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start_server(directory: Path) -> Iterator[StartServer]:
    """Starts servers that serve the test plugins, ready unless asked not to wait."""
    running: list[RunningServer] = []

    def start(
        *options: str,
        workers: int = 2,
        plugins: str = "probe",
        wait: bool = True,
        descriptors: int | None = None,
        **env: str,
    ) -> RunningServer:
        fixed = ["--workers", str(workers), "--plugins", plugins, "--plugins-dir", str(PLUGINS)]
        server = RunningServer(directory, [*fixed, *options], env, descriptors)
        running.append(server)
        if wait:
            server.wait_ready(workers)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RunningServer]:
    """One server for tests that leave it as it was."""
    path = Path(tempfile.mkdtemp(prefix="kms"))
    options = ["--workers", "2", "--plugins", "probe", "--plugins-dir", str(PLUGINS)]
    server = RunningServer(path, options, {})
    server.wait_ready(2)
    yield server
    server.stop()
    shutil.rmtree(path, ignore_errors=True)
