"""An event store server as a child process: ClickHouse's HTTP interface over chDB (see `clickhouse_http`)."""

import os
import signal
import sys
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote

from devstack.children import Child, start_child
from devstack.ports import free_port

PASSWORD = "of a server for tests"  # noqa: S105 - it guards nothing


class EmbeddedClickHouse:
    """Speaks HTTP on 127.0.0.1. What it acknowledged outlives a kill."""

    def __init__(self, data_dir: Path, *, port: int | None = None, password: str = PASSWORD) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._password = password
        self._child: Child | None = None

    @property
    def dsn(self) -> str:
        """`clickhouse://default:PASSWORD@127.0.0.1:PORT/default`."""
        return f"clickhouse://default:{quote(self._password)}@127.0.0.1:{self.port}/default"

    def start(self) -> None:
        """Returns when the server answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        module = "devstack.stores.clickhouse_http"
        argv = [sys.executable, "-m", module, str(self.data_dir / "data"), "--port", str(self.port)]
        self._child = start_child(
            [*argv, "--password", self._password],
            env={"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "PYTHONPATH": os.pathsep.join(sys.path)},
            log_path=self.data_dir / "server.log",
        )
        self._child.wait_until(self._answers, timeout_seconds=60)

    def stop(self) -> None:
        """Harmless when not running."""
        if self._child is not None:
            self._child.stop(number=signal.SIGTERM)
            self._child = None

    def kill(self) -> None:
        """SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """On the same port, whether it runs, was stopped or was killed."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=1) as answer:
                return bool(answer.read() == b"Ok.\n")
        except (URLError, OSError):
            return False
