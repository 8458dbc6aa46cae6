"""Appending usage lines to a live file in the spool directory, beside Kong's own file-log.

The shipper renames live files whenever it likes, so the file is opened for each line: a line goes into the file
that has the name at that moment, and a renamed file is final as soon as the appends under way have ended. One
`write` with O_APPEND keeps lines of several processes apart.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kong_plugins.parts.spool_guard import report_failed_write
from kong_plugins.parts.usage_lines import UsageLine, encode_usage_line

METER_FILE_NAME = "meter.log"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
# The group is the shipper's, where it does not run as Kong's user.
_MODE = 0o640


class SpoolWriteError(OSError):
    """A line is not in the spool, or only the first part of it is: the call is counted as issued, not logged."""


class SpoolWriter:
    """Appends lines to one live file; any number of writers, in any number of processes, may share its name."""

    def __init__(self, directory: Path, *, file_name: str = METER_FILE_NAME) -> None:
        self.path = str(directory / file_name)
        self._directory = directory

    def append(self, line: UsageLine | Mapping[str, Any]) -> None:
        """Append one line, whole; it is safe from the end of this process on, not from a loss of power.

        Raises:
            SpoolWriteError: the disk is full, the directory is away, or only a part could be written. The part
                stays there without an end; the shipper tells it from the line after it.
        """
        data = encode_usage_line(line) + b"\n"
        try:
            descriptor = os.open(self.path, _FLAGS, _MODE)
            try:
                written = os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            report_failed_write(self._directory, error.strerror or type(error).__name__)
            raise SpoolWriteError(error.errno, f"cannot append to {self.path}: {error.strerror}") from error
        if written != len(data):
            report_failed_write(self._directory, "only a part of a line was written")
            raise SpoolWriteError(f"only {written} of {len(data)} bytes went into {self.path}")
