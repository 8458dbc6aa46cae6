"""The master process: starts workers, watches them, and ends with whoever started it.

It never starts gevent and never opens Redis, so that a fork of it is always clean.
"""

import logging
import os
import selectors
import signal
import socket
import time
from typing import Final

from kong_plugins.server import logs, metrics
from kong_plugins.server.exposition import Totals, add, read_slot
from kong_plugins.server.instance_files import InstanceFiles, random_base
from kong_plugins.server.options import Options
from kong_plugins.server.shared_board import MASTER, SharedBoard
from kong_plugins.server.socket_place import SocketPlace
from kong_plugins.server.status_pages import StatusPages
from kong_plugins.server.status_server import StatusServer
from kong_plugins.server.worker_process import (
    MASTERS_SIGNALS,
    STACK_SIGNAL,
    WorkerContext,
    WorkerProcess,
    start_worker,
)

TICK_SECONDS: Final = 0.1
WAITING_TICK_SECONDS: Final = 0.02
LATE_TICK_SECONDS: Final = 0.5
STARTUP_SECONDS: Final = 30.0
SLOWEST_RESTART_SECONDS: Final = 5.0
GIVE_UP_AFTER: Final = 5
JANITOR_SECONDS: Final = 60.0
KILL_MARGIN_SECONDS: Final = 6.0  # what a worker may need, after its events, for the plugins' stop hooks
RESTARTS: Final = "km_pluginserver_worker_restarts_total"
RESTARTS_HELP: Final = "workers replaced, by reason (died, wedged, slow_start)"


class Master:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._place = SocketPlace(options.socket, mode=options.socket_mode)
        self._board = SharedBoard(options.workers)
        self._files = InstanceFiles(self._place.directory)
        self._workers: dict[int, WorkerProcess] = {}
        self._start_at: dict[int, float] = dict.fromkeys(range(options.workers), 0.0)
        self._failures = dict.fromkeys(range(options.workers), 0)
        self._retired: Totals = {}
        self._context = WorkerContext(
            listener=self._place.listener,
            board=self._board,
            instances=self._place.directory,
            first_id=random_base(),
            options=options,
        )
        self._selector = selectors.DefaultSelector()
        self._pages = StatusPages(self._board, self._files, self._retired, options.wedged_after_seconds)
        self._status = self._status_server()
        self._parent = os.getppid()
        self._stop_asked = False
        self._exit_code = 0
        self._last_tick = self._janitor_at = time.monotonic()
        self._trust_heartbeats_at = 0.0
        self._wait_until = time.monotonic() + options.wait_seconds
        self._missing_since: float | None = None

    def run(self) -> int:
        """Serve until told to stop, and return the process's exit code."""
        self._catch_signals()
        logs.log(
            logging.INFO, "plugin server starts", socket=str(self._options.socket), workers=self._options.workers
        )
        try:
            while not self._stop_asked:
                self._turn()
                self._look_after_workers(time.monotonic())
                self._look_after_place(time.monotonic())
            self._stop_workers()
        finally:
            self._place.withdraw()
            self._place.clean_up()
            if self._status is not None:
                self._status.close()
        logs.log(logging.INFO, "plugin server has stopped", code=self._exit_code)
        return self._exit_code

    def _turn(self) -> None:
        """Wait a tick, and answer what comes in meanwhile."""
        for key, _ in self._selector.select(TICK_SECONDS if self._pages.published else WAITING_TICK_SECONDS):
            key.data()
        now = time.monotonic()
        if now - self._last_tick > TICK_SECONDS + LATE_TICK_SECONDS:
            # the machine slept or is starved: the workers' heartbeats are as late as this tick
            self._trust_heartbeats_at = now + self._options.wedged_after_seconds
        self._last_tick = now
        if self._status is not None:
            self._status.tick(now)

    def _look_after_workers(self, now: float) -> None:
        self._reap(now)
        for worker in self._workers.values():
            self._check_heartbeat(worker, now)
        for number, start_at in list(self._start_at.items()):
            if now >= start_at:
                del self._start_at[number]
                self._workers[number] = start_worker(number, self._context, self._release)
        if not self._pages.published and max(self._failures.values()) >= GIVE_UP_AFTER:
            self._stop("no worker can start", code=1)

    def _check_heartbeat(self, worker: WorkerProcess, now: float) -> None:
        age = self._board.slots[worker.number].heartbeat_age_seconds
        if age is None:
            if now - worker.started_at > STARTUP_SECONDS:
                worker.condemned_as = "slow_start"
                worker.signal(signal.SIGKILL)
            return
        self._failures[worker.number] = 0
        silent = worker.silent_seconds(age)
        if silent <= self._options.wedged_after_seconds or now < self._trust_heartbeats_at:
            worker.condemned_as = None
        elif worker.condemned_as is None:
            worker.condemned_as = "wedged"
            worker.signal(STACK_SIGNAL)  # where is it? killed at the next tick
        else:
            logs.log(
                logging.ERROR,
                "worker is wedged and is killed",
                worker=worker.number,
                silent_seconds=round(silent, 1),
                stack=worker.stack(),
            )
            worker.signal(signal.SIGKILL)

    def _reap(self, now: float) -> None:
        for number, worker in list(self._workers.items()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            del self._workers[number]
            slot = self._board.slots[number]
            started = slot.heartbeat_age_seconds is not None
            add(self._retired, read_slot(slot), gauges=False)
            slot.clear()
            if self._stop_asked:
                continue
            reason = worker.condemned_as or "died"
            metrics.counter(RESTARTS, {"reason": reason}, help_text=RESTARTS_HELP).inc()
            code = os.waitstatus_to_exitcode(status)
            logs.log(logging.ERROR, "worker has ended and is replaced", worker=number, reason=reason, code=code)
            self._failures[number] = 0 if started else self._failures[number] + 1
            delay = min(SLOWEST_RESTART_SECONDS, TICK_SECONDS * (2 ** self._failures[number] - 1))
            self._start_at[number] = now + delay

    def _look_after_place(self, now: float) -> None:
        if not self._options.outlive_parent and os.getppid() != self._parent:
            self._stop("the process that started this one has ended")
        if not self._pages.published:
            self._try_to_publish(now)
        elif self._options.socket.exists():
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since > 1.0:
            self._stop("the socket was removed", code=1)
        if now >= self._janitor_at:
            self._janitor_at = now + min(JANITOR_SECONDS, self._options.instance_expiry_seconds / 4)
            if self._files.remove_idle(idle_seconds=self._options.instance_expiry_seconds):
                self._board.instances_changed(MASTER)

    def _try_to_publish(self, now: float) -> None:
        if not any(slot.heartbeat_age_seconds is not None for slot in self._board.slots):
            return
        if self._options.replace or not self._place.someone_answers():
            self._place.publish()
            self._pages.published = True
            logs.log(logging.INFO, "plugin server is ready", socket=str(self._options.socket))
        elif now > self._wait_until:
            self._stop("another server answers at the socket; --replace takes it over", code=1)

    def _stop_workers(self) -> None:
        self._place.withdraw()
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._options.stop_seconds + KILL_MARGIN_SECONDS
        while self._workers:
            self._turn()
            self._reap(time.monotonic())
            if time.monotonic() > deadline:
                for worker in self._workers.values():
                    worker.signal(signal.SIGKILL)

    def _stop(self, reason: str, *, code: int = 0) -> None:
        if not self._stop_asked:
            self._stop_asked, self._exit_code = True, code
            self._pages.stopping = True
            logs.log(logging.ERROR if code else logging.INFO, "plugin server stops", reason=reason)

    def _catch_signals(self) -> None:
        receiver, self._waker = socket.socketpair()
        receiver.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(receiver, selectors.EVENT_READ, lambda: receiver.recv(4096))
        # whatever the parent left blocked
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTERS_SIGNALS | {signal.SIGCHLD})
        for number in MASTERS_SIGNALS:
            signal.signal(number, lambda got, _frame: self._stop(signal.Signals(got).name))
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _release(self) -> None:
        """In a new worker: let go of the master's sockets and signal plumbing."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._status is not None:
            self._status.forget()
        self._selector.close()
        self._waker.close()

    def _status_server(self) -> StatusServer | None:
        if self._options.metrics_port is None:
            return None
        return StatusServer(
            selector=self._selector,
            host=self._options.metrics_host,
            port=self._options.metrics_port,
            pages=self._pages.by_path(),
        )
