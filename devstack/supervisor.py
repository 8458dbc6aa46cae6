"""Named processes that are kept running: started, watched, started again one second after they end."""

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from devstack.children import STOP_SECONDS, Child, ChildFailedError, start_child

RESTART_SECONDS = 1.0
READY_SECONDS = 60.0


class Process(Protocol):
    """What the supervisor keeps running; the embedded stores are such processes, too."""

    @property
    def pid(self) -> int:
        """Of the running process; raises ChildFailedError when there is none."""

    def start(self) -> None:
        """Returns when it is ready; raises ChildFailedError."""

    def stop(self) -> None:
        """In order; harmless when not running."""

    def has_ended(self) -> bool:
        """It was started and has ended by itself or by a signal."""


@dataclass(frozen=True)
class Command:
    """A program, its environment and how to tell that it is ready."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path
    ready: Callable[[], bool]


class CommandProcess:
    """A command as a process to supervise. The command is made anew for every start."""

    def __init__(self, make: Callable[[], Command], *, stop_seconds: float = STOP_SECONDS) -> None:
        self._make = make
        self._stop_seconds = stop_seconds
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        if self._child is None or self._child.exit_code() is not None:
            raise ChildFailedError("the process is not running")
        return self._child.pid

    def start(self) -> None:
        command = self._make()
        self._child = start_child(command.argv, env=command.env, cwd=command.cwd, log_path=command.log_path)
        self._child.wait_until(command.ready, timeout_seconds=READY_SECONDS)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(timeout_seconds=self._stop_seconds)

    def has_ended(self) -> bool:
        return self._child is not None and self._child.exit_code() is not None


class Supervised:
    """One process with the thread that watches it."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
        self.restarts = 0
        self.last_error = ""
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._held = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Returns when it is ready; raises ChildFailedError when the first start fails."""
        self.process.start()
        self._ready.set()
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{self.name}", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(READY_SECONDS + RESTART_SECONDS)
        self.process.stop()

    def kill(self) -> int:
        """SIGKILL to the process alone; it is started again. Returns the pid that was killed."""
        pid = self.process.pid
        # before the signal: whoever waits for readiness now must wait for the next start
        self._ready.clear()
        os.kill(pid, signal.SIGKILL)
        return pid

    def hold(self) -> None:
        """SIGKILL, and leave it down until `release`. Returns when it has ended."""
        self._ready.clear()
        self._held.set()
        wait_until(self.process.has_ended, timeout_seconds=READY_SECONDS, what=f"the end of {self.name}")

    def release(self) -> None:
        """Have a process that was held started again; `wait_ready` says when it is back."""
        self._held.clear()

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait_ready(self, *, timeout_seconds: float = READY_SECONDS) -> None:
        """Raises ChildFailedError when it is not running and ready in time."""
        if not self._ready.wait(timeout_seconds):
            raise ChildFailedError(f"{self.name} is not ready again: {self.last_error or 'still starting'}")

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            if self._held.is_set():
                self._keep_down()
                continue
            if not self.process.has_ended():
                continue
            self._ready.clear()
            if self._stopping.wait(RESTART_SECONDS):
                return
            if self._held.is_set():
                continue
            self.restarts += 1
            try:
                self.process.start()
            except ChildFailedError as error:
                self.last_error = str(error)
            else:
                self._ready.set()

    def _keep_down(self) -> None:
        self._ready.clear()
        if not self.process.has_ended():
            with contextlib.suppress(ChildFailedError, ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)


class Supervisor:
    """Processes by name, stopped in the opposite order of their start."""

    def __init__(self) -> None:
        self._supervised: dict[str, Supervised] = {}
        self._lock = threading.Lock()

    def start(self, name: str, process: Process) -> None:
        """Start and keep running. Raises ChildFailedError; the process is stopped then."""
        supervised = Supervised(name, process)
        try:
            supervised.start()
        except BaseException:
            process.stop()
            raise
        with self._lock:
            self._supervised[name] = supervised

    def __getitem__(self, name: str) -> Supervised:
        return self._supervised[name]

    def all(self) -> list[Supervised]:
        """In the order of their start."""
        return list(self._supervised.values())

    def stop(self) -> None:
        for supervised in reversed(list(self._supervised.values())):
            supervised.stop()
        self._supervised.clear()


def answers_ok(url: str) -> bool:
    """An HTTP GET gives a 2xx within two seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", parts.path or "/")
        return 200 <= connection.getresponse().status < 300  # noqa: PLR2004 - what "2xx" means
    return False


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float, what: str) -> None:
    """Raises ChildFailedError."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ChildFailedError(f"{what} did not happen in {timeout_seconds:.0f} s")
        time.sleep(0.05)
