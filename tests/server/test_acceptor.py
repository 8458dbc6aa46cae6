"""Connections that arrive in the moment in which a worker stops."""

import socket
import threading
from pathlib import Path

import gevent

from kong_plugins.server import logs
from kong_plugins.server.acceptor import Acceptor
from kong_plugins.server.shared_board import SharedBoard


class Served:
    """Stands for `Connection`: serves what it is given by saying so."""

    def open(self, sock):
        self._socket = sock

    def serve(self):
        self._socket.send(b"served")
        self._socket.close()


def _stop_while_one_waits(path: Path, answers: list[bytes]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(10)
        listener.setblocking(False)
        acceptor = Acceptor(
            listener=listener,
            slot=SharedBoard(1).slots[0],
            others=[],
            most=10,
            limiter=logs.Limiter(),
            make=Served,  # type: ignore[arg-type]
        )
        acceptor.start()
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(path))
                if answers:
                    acceptor.stop()
                gevent.sleep(0.05)
                caller.settimeout(10)
                answers.append(caller.recv(100))


class TestStop:
    def test_takes_what_waits_and_comes_back(self, directory: Path):
        """The second connection waits at the stop, while the greenlet of the first is parked for it."""
        answers: list[bytes] = []
        thread = threading.Thread(target=_stop_while_one_waits, args=(directory / "s", answers), daemon=True)
        thread.start()
        thread.join(30)
        assert answers == [b"served", b"served"]
