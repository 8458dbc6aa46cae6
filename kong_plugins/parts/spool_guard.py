"""Watches the disk that usage lines go to, because nobody else does: Kong's file-log ignores write errors.

Without it a full disk serves calls that nobody will ever count. So while there is less free space than the
reserve, or the directory or a live file in it cannot be written to, calls are refused, or served and counted as
such, as the operator chose. Only admission asks; a refusal needs no line.

Calls that are served all the same stay in the account's counters as admitted and never appear among its events:
the difference is what is unsettled.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any
from weakref import WeakSet

import gevent

from kong_plugins.server import metrics

log = logging.getLogger(__name__)

CHECK_EVERY_SECONDS = 1.0
LIVE_SUFFIX = ".log"
_PROBE = bytes(4096)
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC

_full = metrics.gauge("km_gateway_spool_trouble", help_text="workers that see a spool they should not rely on")
_refused = metrics.counter("km_gateway_spool_refusals_total", help_text="calls refused: no line can be kept")
_served = metrics.counter("km_gateway_spool_risked_total", help_text="calls served though no line may be kept")


_watching: "WeakSet[SpoolGuard]" = WeakSet()


def report_failed_write(directory: Path, reason: str) -> None:
    """A line of this process could not be written, so its guards know without looking, until they look again."""
    for guard in tuple(_watching):
        guard.note_failed_write(directory, reason)


class SpoolGuard:
    """Looks every second from `start` to `stop`; without a directory there is nothing to watch."""

    def __init__(self, directory: Path | None, *, reserve_bytes: int, serves_all_the_same: bool) -> None:
        self.trouble = ""
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._serves_all_the_same = serves_all_the_same
        self._watcher: Any = None

    def start(self) -> None:
        """Look now and go on looking; harmless when started already."""
        if self._directory is not None and self._watcher is None:
            self.look(self._directory)
            self._watcher = gevent.spawn(self._watch, self._directory)
            _watching.add(self)

    def stop(self) -> None:
        watcher, self._watcher = self._watcher, None
        _watching.discard(self)
        if watcher is not None:
            watcher.kill(block=False)

    def refuses(self) -> bool:
        """Say, and count, whether a call has to be refused. Ask only while there is trouble."""
        (_served if self._serves_all_the_same else _refused).inc()
        return not self._serves_all_the_same

    def look(self, directory: Path) -> None:
        """Find out how it stands and say where that has changed."""
        self._note(directory, self._find_trouble(directory))

    def note_failed_write(self, directory: Path, reason: str) -> None:
        """Take note that a line could not be written to `directory`; another directory is none of ours."""
        if directory == self._directory:
            self._note(directory, reason)

    def _note(self, directory: Path, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.error("usage lines cannot be kept in %s: %s", directory, trouble)
        elif self.trouble and not trouble:
            log.warning("usage lines can be kept in %s again", directory)
        self.trouble = trouble
        _full.set(1 if trouble else 0)

    def _watch(self, directory: Path) -> None:
        while True:
            gevent.sleep(CHECK_EVERY_SECONDS)
            self.look(directory)

    def _find_trouble(self, directory: Path) -> str:
        try:
            disk = os.statvfs(directory)
            if disk.f_bavail * disk.f_frsize < self._reserve_bytes:
                return "less space is free than the reserve"
            probe = directory / f"probe-{os.getpid()}.tmp"
            with probe.open("wb", buffering=0) as file:
                written = file.write(_PROBE)
            probe.unlink(missing_ok=True)
            _open_live_files(directory)
        except OSError as error:
            return error.strerror or type(error).__name__
        return "" if written == len(_PROBE) else "only a part of a line was written"


def _open_live_files(directory: Path) -> None:
    """Raises OSError where a live file takes no lines, though new files could be made beside it."""
    with os.scandir(directory) as entries:
        names = [entry.path for entry in entries if entry.name.endswith(LIVE_SUFFIX)]
    for name in names:
        # the shipper may take the file away at any moment
        with contextlib.suppress(FileNotFoundError):
            os.close(os.open(name, _OPEN_FLAGS))
