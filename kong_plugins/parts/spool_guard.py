"""Watches the disk that usage lines go to, because nobody else does: Kong's file-log ignores write errors.

Without it a full disk serves calls that nobody will ever count. So while there is less free space than the
reserve, or the directory cannot be written to, calls are refused, or served and counted as such, as the operator
chose. Only admission asks; a refusal needs no line.
"""

import logging
import os
from pathlib import Path
from typing import Any

import gevent

from kong_plugins.server import metrics

log = logging.getLogger(__name__)

CHECK_EVERY_SECONDS = 1.0
_PROBE = bytes(4096)

_full = metrics.gauge("km_gateway_spool_trouble", help_text="workers that see a spool they should not rely on")
_refused = metrics.counter("km_gateway_spool_refusals_total", help_text="calls refused: no line can be kept")
_served = metrics.counter("km_gateway_spool_risked_total", help_text="calls served though no line may be kept")


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

    def stop(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill(block=False)

    def refuses(self) -> bool:
        """Say, and count, whether a call has to be refused. Ask only while there is trouble."""
        (_served if self._serves_all_the_same else _refused).inc()
        return not self._serves_all_the_same

    def look(self, directory: Path) -> None:
        """Find out how it stands and say where that has changed."""
        trouble = self._find_trouble(directory)
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
        except OSError as error:
            return error.strerror or type(error).__name__
        return "" if written == len(_PROBE) else "only a part of a line was written"
