"""Starting a worker as a process of its own, and what the master knows of it."""

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from kong_plugins.server import logs
from kong_plugins.server.options import Options
from kong_plugins.server.shared_board import SharedBoard

_PR_SET_PDEATHSIG: Final = 1
STACK_SIGNAL: Final = signal.SIGUSR1
MASTERS_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
FRESH_SECONDS: Final = 0.25


@dataclass(slots=True)
class WorkerProcess:
    number: int
    pid: int
    stack_file: Path
    started_at: float = field(default_factory=time.monotonic)
    condemned_as: str | None = None  # why it is being killed
    _starved_before: float = 0.0

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def silent_seconds(self, heartbeat_age_seconds: float) -> float:
        """Return the age without the time since then in which the machine had no core for the worker.

        A starved worker is not a wedged one, and killing it would make things worse.
        """
        starved = self._starved_seconds()
        if heartbeat_age_seconds < FRESH_SECONDS:
            self._starved_before = starved
        return heartbeat_age_seconds - (starved - self._starved_before)

    def _starved_seconds(self) -> float:
        """Return how long the process has waited for a core in its life; 0 where the system does not tell."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    def stack(self) -> list[str]:
        """Return where the worker was when asked by STACK_SIGNAL: files and lines, no values."""
        with contextlib.suppress(OSError):
            return self.stack_file.read_text().splitlines()
        return []


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What every worker is given."""

    listener: socket.socket
    board: SharedBoard
    instances: Path
    first_id: int
    options: Options


def start_worker(number: int, context: WorkerContext, release: Callable[[], None]) -> WorkerProcess:
    """Fork a worker. `release` lets go, in the new process, of what belongs to the master alone."""
    master = os.getpid()
    stack_file = context.instances / f"stack-{number}"
    # A SIGTERM that reached the new process while it still has the master's handlers would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, MASTERS_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(number, context, release, master, stack_file)
        return WorkerProcess(number, pid, stack_file)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTERS_SIGNALS)


def _become_worker(
    number: int, context: WorkerContext, release: Callable[[], None], master: int, stack_file: Path
) -> NoReturn:
    code = 1
    try:
        _die_with_parent()
        if os.getppid() != master:
            os._exit(code)  # it died before the line above took effect
        for one, handler in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGHUP, signal.SIG_IGN)):
            signal.signal(one, handler)  # a Ctrl-C reaches the master, which tells the workers
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTERS_SIGNALS)
        release()
        faulthandler.register(STACK_SIGNAL, file=stack_file.open("w"), all_threads=False)
        _run_patched(number, context, master)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the process must end here whatever happens
        logs.log(logging.CRITICAL, "worker ends on an exception", worker=number, error=error)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _run_patched(number: int, context: WorkerContext, master: int) -> None:
    """Patch the standard library before plugins and their libraries are imported, then serve."""
    from gevent import monkey

    monkey.patch_all()

    from kong_plugins.server.worker import Worker

    Worker(
        number=number,
        listener=context.listener,
        board=context.board,
        instances=context.instances,
        first_id=context.first_id,
        options=context.options,
        master=master,
    ).run()


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the master ends. Workers also look for themselves."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
