"""One client at a time for a directory. The lock goes with the process, however it ends."""

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

    def release(self) -> None:
        os.close(self._descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
