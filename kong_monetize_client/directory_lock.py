"""One client at a time for a directory. The lock goes with the process, however it ends.

A process that is forked has a handle of the same lock, which would hold it for as long as that process lives: it
is closed there at once.
"""

import os
import sys
from pathlib import Path

from kong_monetize_client.errors import DirectoryInUseError

LOCK = "lock"


class DirectoryLock:
    """Taken when made, until `release`."""

    def __init__(self, directory: Path) -> None:
        """Raises DirectoryInUseError where another client has it, in this process or another."""
        self._descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise DirectoryInUseError(f"{directory} is used by another client; each needs its own") from error
        _held.append(self)

    def release(self) -> None:
        """Let others have it. Harmless when released already, or in another process than took it."""
        if self in _held:
            _held.remove(self)
            _unlock(self._descriptor)
            os.close(self._descriptor)


_held: list[DirectoryLock] = []


def _let_go() -> None:
    while _held:
        os.close(_held.pop()._descriptor)  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
