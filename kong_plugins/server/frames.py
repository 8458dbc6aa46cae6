"""Frames over one of Kong's connections, under gevent.

Written against the event loop and not with gevent's sockets, because this is where a plugin server spends its
time: a gevent `recv` tries, fails, registers with epoll, waits, unregisters and tries again, for each of Kong's
answers. Here the watcher stays registered and the wait comes first.
"""

import _socket
from typing import Any, Final

import gevent
from gevent import getcurrent

from kong_plugins.server import wire
from kong_plugins.server.errors import ConnectionLostError, WireError

READ: Final = 1
WRITE: Final = 2
CHUNK: Final = 16_384
PREFIX: Final = 4
LONGEST_FRAME: Final = 256 * 1024 * 1024  # a whole request body may come in one


class FrameSocket:
    """One connection after the other; only one greenlet may read and write."""

    def __init__(self) -> None:
        self._hub: Any = gevent.get_hub()
        self._buffer = bytearray()
        self._waiter: Any = None
        self._watching = False
        self.broken_off = False  # a frame was written in part: nothing more may be written

    def open(self, sock: _socket.socket) -> None:
        """Take a new connection on, which must not block."""
        self._socket = sock
        self._watcher: Any = self._hub.loop.io(sock.fileno(), READ)
        self._watching = self.broken_off = False
        self._buffer.clear()

    def close(self) -> None:
        """Close the connection; what has been written still arrives."""
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()

    def read(self, longest: int = LONGEST_FRAME) -> bytes | None:
        """Return the next frame's payload, or None where Kong has closed the connection between frames.

        What was read of a frame is kept when the wait is interrupted. Raises ConnectionLostError where the
        connection ends inside a frame, WireError where the frame is longer than allowed.
        """
        buffer = self._buffer
        if not buffer:
            if self._watching:  # on a new connection Kong has mostly written before it was accepted
                self._wait_readable()
            data = self._receive()
            size = len(data)
            if size >= PREFIX and wire.frame_length(data)[0] == size - PREFIX:
                return data[PREFIX:]
            if not data:
                return None
            buffer += data
        while True:
            if len(buffer) >= PREFIX:
                stop = wire.frame_length(buffer)[0] + PREFIX
                if stop > longest + PREFIX:
                    raise WireError(f"a frame of {stop} bytes is longer than allowed")
                if len(buffer) >= stop:
                    payload = bytes(buffer[PREFIX:stop])
                    del buffer[:stop]
                    return payload
            data = self._receive_rest()
            if not data:
                raise ConnectionLostError("Kong closed the connection inside a frame")
            buffer += data

    def write(self, data: bytes) -> None:
        """Write all of it. Raises ConnectionLostError where Kong has closed the connection."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ConnectionLostError("Kong has closed the connection") from error
        if sent < len(data):
            self._write_rest(memoryview(data)[sent:])

    def discard(self) -> None:
        """Read and forget until Kong closes the connection."""
        self._buffer.clear()
        while self._receive():
            pass

    @property
    def is_waiting(self) -> bool:
        """Say whether the greenlet waits for Kong to send."""
        return self._waiter is not None

    @property
    def has_begun(self) -> bool:
        """Say whether Kong has sent something that was not read as a frame yet.

        Closed now, the connection would be reset, which Kong takes for a failure; a plain end makes it try again.
        """
        if self._buffer:
            return True
        try:
            return bool(self._socket.recv(1, _socket.MSG_PEEK))
        except OSError:
            return False

    def _receive_rest(self) -> bytes:
        """Do what `_receive` does, inside a frame."""
        return self._receive()

    def _receive(self) -> bytes:
        """Return some bytes, or none at the end of the connection; waits where there are none yet."""
        while True:
            try:
                return self._socket.recv(CHUNK)
            except BlockingIOError:
                self._wait_readable()
            except OSError:
                return b""

    def _wait_readable(self) -> None:
        if not self._watching:
            self._watcher.start(self._on_readable)
            self._watching = True
        self._waiter = getcurrent()
        try:
            self._hub.switch()
        finally:
            self._waiter = None

    def _on_readable(self) -> None:
        waiter = self._waiter
        if waiter is None:
            # Kong sends unasked only to say goodbye; left on, the watcher would spin until that is read
            self._watcher.stop()
            self._watching = False
        else:
            waiter.switch()

    def _write_rest(self, rest: memoryview) -> None:
        self.broken_off = True
        watcher = self._hub.loop.io(self._socket.fileno(), WRITE)
        try:
            while rest:
                self._hub.wait(watcher)
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ConnectionLostError("Kong has closed the connection") from error
        finally:
            watcher.stop()
            watcher.close()
        self.broken_off = False
