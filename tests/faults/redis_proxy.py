"""A proxy between a worker and Redis that can be slow, see what passes, and lead to another server."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

PIECE_BYTES = 65_536


class RedisProxy:
    """Listens on a port of 127.0.0.1. Connections that exist stay with the server they were made to.

    `delay_seconds` holds every reply. `after_script_sent` is called when a call of the limit script was handed to
    Redis, `after_script_answered` when its reply has come, before it goes on.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_seconds = 0.0
        self.after_script_sent: Callable[[], None] | None = None
        self.after_script_answered: Callable[[], None] | None = None
        self._asked = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._start(self._accept)

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target_port))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                self._start(self._forward, client, server)
                self._start(self._answer, server, client)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(PIECE_BYTES):
                is_script = b"EVALSHA" in data
                self._asked = self._asked or is_script
                server.sendall(data)
                if is_script and self.after_script_sent is not None:
                    self.after_script_sent()
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(PIECE_BYTES):
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if self._asked and self.after_script_answered is not None:
                    self.after_script_answered()
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
