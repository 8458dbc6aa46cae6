"""A worker process: beats, ends overdue events, stops gracefully.

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
from kong_plugins.server.acceptor import Acceptor
from kong_plugins.server.connection import Connection
from kong_plugins.server.descriptors import most_connections
from kong_plugins.server.instance_files import InstanceFiles
from kong_plugins.server.options import Options
from kong_plugins.server.plugin_host import PluginHost
from kong_plugins.server.shared_board import SharedBoard

BEAT_SECONDS: Final = 0.1
HOUSEKEEPING_SECONDS: Final = 60.0
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
        self._slot = board.slots[number]
        self._options = options
        self._master = master
        hub: Any = gevent.get_hub()
        hub.print_exception = logs.log_greenlet_failure
        self._loop: Any = hub.loop
        self._stopping = gevent.event.Event()
        metrics.attach(self._slot.values, self._slot.names, self._slot.names_used)
        self._host = PluginHost(
            names=options.plugins,
            sources=options.sources,
            files=InstanceFiles(instances),
            board=board,
            worker=number,
            first_id=first_id,
            touch_seconds=min(TOUCH_SECONDS, options.instance_expiry_seconds / 4),
        )
        self._acceptor = Acceptor(
            listener=listener,
            slot=self._slot,
            others=[slot for slot in board.slots if slot is not self._slot],
            most=most_connections(),
            limiter=self._host.limiter,
            make=lambda: Connection(host=self._host, event_timeout_seconds=options.event_timeout_seconds),
        )

    def run(self) -> None:
        """Serve until told to stop; returns when the last event has ended or its time is over."""
        signal_handler(signal.SIGTERM, self._stopping.set)
        gc.collect()
        gc.freeze()
        self._slot.beat()
        gevent.spawn(self._beat)
        self._acceptor.start()
        logs.log(logging.INFO, "worker is ready", worker=self._number)
        self._stopping.wait()
        self._stop()

    def _beat(self) -> None:
        tidy_at = time.monotonic() + HOUSEKEEPING_SECONDS
        while True:
            self._slot.beat()
            now = time.monotonic()
            for connection in self._acceptor.connections:
                if 0.0 < connection.deadline < now:
                    self._loop.run_callback(connection.interrupt_if_overdue, now)
            if os.getppid() != self._master:
                os._exit(1)  # where the kernel does not see to it
            if now > tidy_at:
                self._host.drop_unused(now)
                tidy_at = now + HOUSEKEEPING_SECONDS
            gevent.sleep(BEAT_SECONDS)

    def _stop(self) -> None:
        self._acceptor.stop()  # nobody finds the socket any more; who has found it still gets an answer
        for connection in self._acceptor.connections:
            self._loop.run_callback(connection.stop_if_idle)
        deadline = time.monotonic() + self._options.stop_seconds
        while time.monotonic() < deadline:
            gevent.sleep(0.01)
            if not any(connection.is_busy for connection in self._acceptor.connections):
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
