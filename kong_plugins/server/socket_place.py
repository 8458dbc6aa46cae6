"""The path Kong connects to, and the private directory beside it.

The socket is made under another name and moved into place when a worker is ready: whoever finds it finds someone
answering, and moving replaces a socket left by a killed server in one step.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Final

from kong_plugins.server.errors import PluginServerError

BACKLOG: Final = 4096
_LOCK: Final = "lock"
_LOCKING_SECONDS: Final = 60


class SocketPlaceError(PluginServerError):
    """The socket cannot be where it was asked to be."""


class SocketPlace:
    def __init__(self, path: Path, *, mode: int) -> None:
        self._path = path
        self._mode = mode
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}")
        self._identity: tuple[int, int] | None = None
        if path.exists() and not path.is_socket():
            raise SocketPlaceError(f"{path} exists and is no socket")
        self.listener = self._bind()
        self.directory = self._make_directory()

    def someone_answers(self) -> bool:
        """Say whether another live server has the path."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(self._path))
            except TimeoutError:
                return True
            except OSError:
                return False
        return True

    def publish(self) -> None:
        """Move the socket to its path, over whatever socket is there."""
        self._temporary.rename(self._path)

    @property
    def is_ours(self) -> bool:
        """Say whether the path leads to this server."""
        with contextlib.suppress(OSError):
            found = self._path.stat()
            return (found.st_dev, found.st_ino) == self._identity
        return False

    def withdraw(self) -> None:
        """Take the socket away, unless another server has taken the path over."""
        if self.is_ours:
            self._path.unlink(missing_ok=True)
        self._temporary.unlink(missing_ok=True)

    def clean_up(self) -> None:
        """Remove the private directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._temporary.unlink(missing_ok=True)
        try:
            listener.bind(os.fspath(self._temporary))
        except OSError as error:
            listener.close()
            raise SocketPlaceError(f"no socket can be made in {self._path.parent}: {error.strerror}") from error
        self._temporary.chmod(self._mode)
        found = self._temporary.stat()
        self._identity = (found.st_dev, found.st_ino)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener

    def _make_directory(self) -> Path:
        """Return a new directory only this user can enter, and remove those of servers that are gone."""
        parent = self._path.with_name(f"{self._path.name}.instances")
        parent.mkdir(mode=0o700, exist_ok=True)
        if parent.is_symlink() or parent.stat().st_uid != os.geteuid():
            raise SocketPlaceError(f"{parent} belongs to someone else")
        parent.chmod(0o700)
        for leftover in parent.iterdir():
            if not _is_held(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(dir=parent))
        self._lock = (directory / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return directory


def _is_held(directory: Path) -> bool:
    """Say whether a living server has this directory, or is about to lock it."""
    try:
        with (directory / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        with contextlib.suppress(OSError):
            return time.time() - directory.stat().st_mtime < _LOCKING_SECONDS
    return False
