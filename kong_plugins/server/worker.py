"""A worker process: accepts connections, beats, ends overdue events, stops gracefully.

Imported only after gevent has patched the standard library in the new process.
"""

import _socket
import gc
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import signal_handler

from kong_plugins.server import logs, metrics
from kong_plugins.server.connection import Connection
from kong_plugins.server.instance_files import InstanceFiles
from kong_plugins.server.options import Options
from kong_plugins.server.plugin_host import PluginHost
from kong_plugins.server.registry import plugin_names
from kong_plugins.server.shared_board import SharedBoard

BEAT_SECONDS: Final = 0.1
HOUSEKEEPING_SECONDS: Final = 60.0
YIELD_SECONDS: Final = 0.002
ACCEPT_PAUSE_SECONDS: Final = 0.1
HOOK_SECONDS: Final = 5.0
TOUCH_SECONDS: Final = 300.0


class Worker:
    def __init__(
        self,
        *,
        number: int,
        listener: _socket.socket,
        board: SharedBoard,
        instances: Path,
        first_id: int,
        options: Options,
        master: int,
    ) -> None:
        self._number = number
        self._listener = listener
        self._board = board
        self._slot = board.slots[number]
        self._options = options
        self._master = master
        hub: Any = gevent.get_hub()
        hub.print_exception = logs.log_greenlet_failure
        self._loop: Any = hub.loop
        self._connections: set[Connection] = set()
        self._accepting: Any = self._loop.io(listener.fileno(), 1)
        self._stopping = gevent.event.Event()
        metrics.attach(self._slot.values, self._slot.names, self._slot.names_used)
        self._host = PluginHost(
            names=options.plugins or plugin_names(options.plugins_dir),
            plugins_dir=options.plugins_dir,
            files=InstanceFiles(instances),
            board=board,
            worker=number,
            first_id=first_id,
            touch_seconds=min(TOUCH_SECONDS, options.instance_expiry_seconds / 4),
        )

    def run(self) -> None:
        """Serve until told to stop; returns when the last event has ended or its time is over."""
        signal_handler(signal.SIGTERM, self._stopping.set)
        gc.collect()
        gc.freeze()
        self._slot.beat()
        gevent.spawn(self._beat)
        self._accepting.start(self._on_connection)
        logs.log(logging.INFO, "worker is ready", worker=self._number)
        self._stopping.wait()
        self._stop()

    def _beat(self) -> None:
        tidy_at = time.monotonic() + HOUSEKEEPING_SECONDS
        while True:
            self._slot.beat()
            now = time.monotonic()
            for connection in self._connections:
                if 0.0 < connection.deadline < now:
                    self._loop.run_callback(connection.interrupt_if_overdue, now)
            if os.getppid() != self._master:
                os._exit(1)  # where the kernel does not see to it
            if now > tidy_at:
                self._host.drop_unused(now)
                tidy_at = now + HOUSEKEEPING_SECONDS
            gevent.sleep(BEAT_SECONDS)

    def _on_connection(self) -> None:
        """A connection waits. A worker that has more than another lets that one have it, for a moment."""
        if self._slot.connections > min(slot.connections for slot in self._board.slots):
            self._accepting.stop()
            self._later(YIELD_SECONDS)
            return
        self._accept()

    def _accept(self) -> bool:
        """Take one waiting connection; False where none waits or none can be taken."""
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - the C socket's own
        except BlockingIOError:
            return False
        except OSError as error:
            self._host.limiter.log(logging.ERROR, "accept", "no connection can be accepted", error=error)
            self._accepting.stop()
            self._later(ACCEPT_PAUSE_SECONDS)
            return False
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        connection = Connection(sock, host=self._host, event_timeout_seconds=self._options.event_timeout_seconds)
        self._connections.add(connection)
        self._slot.connections = len(self._connections)
        gevent.spawn(self._serve, connection)
        return True

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)
            self._slot.connections = len(self._connections)

    def _later(self, seconds: float) -> None:
        def accept_again() -> None:
            timer.close()
            if not self._stopping.is_set():
                self._accept()
                self._accepting.start(self._on_connection)

        timer = self._loop.timer(seconds)
        timer.start(accept_again)

    def _stop(self) -> None:
        self._accepting.stop()
        while self._accept():  # nobody finds the socket any more; who has found it still gets an answer
            pass
        for connection in self._connections:
            self._loop.run_callback(connection.stop_if_idle)
        deadline = time.monotonic() + self._options.stop_seconds
        while time.monotonic() < deadline:
            gevent.sleep(0.01)
            if not any(connection.is_busy for connection in self._connections):
                break
        hooks = {
            hook: name
            for name, module in self._host.modules.items()
            if module is not None and (hook := module.hook("stop_worker")) is not None
        }
        for hook, name in hooks.items():
            self._run_stop_hook(name, hook)
        logs.log(logging.INFO, "worker has stopped", worker=self._number)

    def _run_stop_hook(self, name: str, hook: Any) -> None:
        try:
            with gevent.Timeout(HOOK_SECONDS):
                hook()
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001 - the other plugins' hooks still have to run
            logs.log(logging.ERROR, "stop hook failed", plugin=name, error=error)
