"""Taking connections off the listening socket that all workers share, as long as there is room for them."""

import _socket
import errno
import heapq
import logging
from collections.abc import Callable
from typing import Any, Final

import gevent

from kong_plugins.server import logs, metrics
from kong_plugins.server.connection import Connection
from kong_plugins.server.shared_board import WorkerSlot

YIELD_SECONDS: Final = 0.002
FULL_SECONDS: Final = 0.1
IDLE_ENDED_AT_ONCE: Final = 16
MOST_PARKED: Final = 256
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})

_accepted = metrics.counter("km_pluginserver_connections_total", help_text="connections accepted")
_full = metrics.counter(
    "km_pluginserver_full_total", help_text="times a worker had no room for one connection more"
)
_ended_idle = metrics.counter(
    "km_pluginserver_idle_connections_ended_total", help_text="idle connections closed to make room for others"
)


class Acceptor:
    """Each connection has a greenlet; both are parked and used again when the connection ends."""

    def __init__(
        self,
        *,
        listener: _socket.socket,
        slot: WorkerSlot,
        others: list[WorkerSlot],
        most: int,
        limiter: logs.Limiter,
        make: Callable[[], Connection],
    ) -> None:
        self._listener = listener
        self._slot = slot
        self._others = others
        self._most = most
        self._limiter = limiter
        self._make = make
        self._hub: Any = gevent.get_hub()
        self._waiting: Any = self._hub.loop.io(listener.fileno(), 1)
        self._pause: Any = None
        self._parked: list[tuple[Connection, Any]] = []
        self._stopped = False
        self.connections: set[Connection] = set()

    def start(self) -> None:
        self._waiting.start(self._on_waiting)

    def stop(self) -> None:
        """Take what waits already and nothing after it: who has found the socket still gets an answer."""
        self._stopped = True
        self._waiting.stop()
        if self._pause is not None:
            self._pause.close()
            self._pause = None
        while self._take():
            pass

    def _on_waiting(self) -> None:
        """A connection waits. A worker that has more than another lets that one have it, for a moment."""
        mine = self._slot.connections
        for other in self._others:
            if other.connections < mine:
                self._pause_for(YIELD_SECONDS)
                return
        self._take()

    def _take(self) -> bool:
        """Take one waiting connection; False where none waits or there is no room for it."""
        if len(self.connections) >= self._most:
            self._make_room("worker has as many connections as it may")
            return False
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - the C socket's own
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                self._make_room("worker is out of file descriptors")
            else:
                self._limiter.log(logging.ERROR, "accept", "no connection can be accepted", error=error)
                self._pause_for(FULL_SECONDS)
            return False
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
        sock.setblocking(False)
        self._hand_over(sock)
        return True

    def _hand_over(self, sock: _socket.socket) -> None:
        # while the worker stops, it is not the hub that runs this: whoever switched would not be come back to
        if self._parked and not self._stopped:
            connection, greenlet = self._parked.pop()
            connection.open(sock)
            self._note(connection)
            greenlet.switch()
            return
        connection = self._make()
        connection.open(sock)
        self._note(connection)
        gevent.spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        """Serve one connection after the other; the body of a greenlet."""
        while True:
            try:
                connection.serve()
            finally:
                self.connections.discard(connection)
                self._slot.connections = len(self.connections)
            if self._stopped or len(self._parked) >= MOST_PARKED:
                return
            self._parked.append((connection, gevent.getcurrent()))
            self._hub.switch()

    def _note(self, connection: Connection) -> None:
        _accepted.inc()
        self.connections.add(connection)
        self._slot.connections = len(self.connections)

    def _make_room(self, message: str) -> None:
        """Close the connections Kong has not used for longest; the one that waits is taken afterwards.

        Kong notices and opens another when it needs one. Where all are busy, the one that waits goes on doing
        so until one ends, or until another worker has room.
        """
        _full.inc()
        idle = [one for one in self.connections if one.seems_idle]
        ending = heapq.nsmallest(IDLE_ENDED_AT_ONCE, idle, key=lambda one: one.last_used)
        self._limiter.log(
            logging.ERROR, "full", message, connections=len(self.connections), idle=len(idle), ended=len(ending)
        )
        for connection in ending:
            _ended_idle.inc()
            self._hub.loop.run_callback(connection.end_if_idle)
        self._pause_for(YIELD_SECONDS if ending else FULL_SECONDS)

    def _pause_for(self, seconds: float) -> None:
        """Leave what waits alone for so long."""
        self._waiting.stop()
        if self._pause is None and not self._stopped:
            self._pause = self._hub.loop.timer(seconds)
            self._pause.start(self._go_on)

    def _go_on(self) -> None:
        self._pause.close()
        self._pause = None
        # one is taken even where another worker has fewer connections: that one may be wedged
        self._take()
        if self._pause is None:
            self._waiting.start(self._on_waiting)
