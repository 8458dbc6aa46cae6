"""Plugin instances as files, because Kong starts one on any worker and uses it on all of them.

One file per id in a directory of the server's own (0700): the plugin's name, a newline, the configuration as
Kong sent it. An id that has no file does not exist; its use makes Kong start the instance anew.
"""

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Kong's ids are int32; each start of the server draws a range at random in which a few million ids fit
_LOWEST_ID: Final = 1 << 20
_HIGHEST_BASE: Final = (1 << 31) - (1 << 26)


@dataclass(frozen=True, slots=True)
class StoredInstance:
    plugin: str
    config: bytes


def random_base() -> int:
    """Return where this start's ids begin, so that an id of an earlier start names nothing."""
    return _LOWEST_ID + secrets.randbelow(_HIGHEST_BASE - _LOWEST_ID)


class InstanceFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, instance_id: int, instance: StoredInstance) -> None:
        """Store a new instance; FileExistsError where the id is taken."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = os.open(self._path(instance_id), flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(instance.plugin.encode() + b"\n" + instance.config)
        except OSError:
            self.remove(instance_id)
            raise

    def read(self, instance_id: int) -> StoredInstance | None:
        """Return the instance, or None where there is none of that id."""
        try:
            plugin, _, config = self._path(instance_id).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return StoredInstance(plugin.decode(), config)

    def remove(self, instance_id: int) -> None:
        """Remove the instance; one that is gone already is fine."""
        with contextlib.suppress(FileNotFoundError):
            self._path(instance_id).unlink()

    def touch(self, instance_id: int) -> None:
        """Note that the instance is in use."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(instance_id))

    def ids(self) -> set[int]:
        return {int(path.name) for path in self._directory.iterdir() if path.name.isdigit()}

    def remove_idle(self, *, idle_seconds: float) -> int:
        """Remove what was not touched for so long and return how many that were."""
        oldest, removed = time.time() - idle_seconds, 0
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name.isdigit() and path.stat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, instance_id: int) -> Path:
        return self._directory / str(instance_id)
