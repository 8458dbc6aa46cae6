"""Child processes that never outlive us, not even when we are killed with SIGKILL."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
STOP_SECONDS = 15.0
KILL_SECONDS = 10.0


class ChildFailedError(Exception):
    """A child process ended, or did not become ready in time."""


@dataclass(frozen=True)
class RunAs:
    """The unprivileged user a child runs as; only root can ask for one."""

    uid: int
    gid: int


class Child:
    """One running process in a session of its own, with everything it starts."""

    def __init__(self, process: "subprocess.Popen[bytes]", argv: Sequence[str], log_path: Path | None) -> None:
        self._process = process
        self.argv = list(argv)
        self.log_path = log_path
        self.pid = process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        """To the process alone, not to what it started; quietly nothing when it has ended."""
        self._process.send_signal(number)

    def stop(self, *, number: int = signal.SIGTERM, timeout_seconds: float = STOP_SECONDS) -> int:
        """Ask to end, wait, and kill the whole tree when it does not. Returns the exit code."""
        self.send_signal(number)
        # one that was paused must wake up to hear it
        self.send_signal(signal.SIGCONT)
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to the process and every descendant; returns when all of them are gone."""
        family = [self.pid, *descendants(self.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait(KILL_SECONDS)
        deadline = time.monotonic() + KILL_SECONDS
        while any(is_running(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(0.01)
        return code

    def wait_until(self, ready: Callable[[], bool], *, timeout_seconds: float = 30.0) -> None:
        """Poll `ready`; raises ChildFailedError with the end of the log when the child ends or is late."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            code = self.exit_code()
            if code is not None:
                raise ChildFailedError(f"{self.argv[0]} ended with code {code}: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise ChildFailedError(
                    f"{self.argv[0]} was not ready in {timeout_seconds:.0f} s: {self._log_tail()}"
                )
            time.sleep(0.02)

    def _log_tail(self) -> str:
        if self.log_path is None or not self.log_path.exists():
            return "(no log)"
        return self.log_path.read_text(errors="replace")[-2000:]


def start_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log_path: Path | None = None,
    inherit_output: bool = False,
    run_as: RunAs | None = None,
    death_signal: int = signal.SIGKILL,
) -> Child:
    """Start a process that receives `death_signal` when this one ends, however it ends.

    Safe to call from any thread. `env` None inherits ours. Output is appended to
    `log_path`, or mixed with ours if `inherit_output`, or thrown away.
    """
    uid, gid = (run_as.uid, run_as.gid) if run_as else (-1, -1)
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(death_signal))]
    command = [*launcher, str(uid), str(gid), *argv]

    def spawn() -> "subprocess.Popen[bytes]":
        output = log_path.open("ab") if log_path else None
        try:
            return subprocess.Popen(
                command,
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=None if inherit_output else output or subprocess.DEVNULL,
                stderr=None if inherit_output else subprocess.STDOUT,
                # a session of its own: Ctrl-C in the terminal reaches us only, and we stop it in order
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    return Child(_spawner().run(spawn), argv, log_path)


class _Spawner:
    """The kernel sends the death signal when the *thread* that forked ends, so one lasting thread forks all."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]
        ] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="child-spawner", daemon=True).start()

    def run(self, job: "Callable[[], subprocess.Popen[bytes]]") -> "subprocess.Popen[bytes]":
        done: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, done))
        return done.result()

    def _work(self) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                done.set_exception(error)


_lock = threading.Lock()
_current: list[_Spawner] = []


def _spawner() -> _Spawner:
    with _lock:
        if not _current:
            _current.append(_Spawner())
        return _current[0]


def _forget_spawner() -> None:
    # a forked copy of us has no spawner thread: it makes its own when it needs one
    global _lock  # noqa: PLW0603 - the old lock may be held by a thread that does not exist here
    _lock = threading.Lock()
    _current.clear()


os.register_at_fork(after_in_child=_forget_spawner)


def is_running(pid: int) -> bool:
    """False for a zombie too: it holds nothing any more but its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists() and _answers_signal(pid)
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _answers_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, parents first; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    frontier = [pid]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        found.extend(frontier)
    return found
