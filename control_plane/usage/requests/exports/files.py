"""Files of exports: private to the server, hashed while they are written, no longer than allowed."""

import hashlib
import os
import shutil
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from control_plane.usage.requests.exports.model import ExportConfig, ExportRefusedError
from control_plane.usage.requests.exports.parquet import ParquetJoiner
from control_plane.usage.store.event_reads import FileFormat

PRIVATE = 0o600
_MIB = 1024**2


class FileWriter(Protocol):
    """Puts pieces one after another."""

    def add(self, piece: bytes) -> int:
        """Add a piece and return how many rows it has."""
        ...

    def finish(self) -> None: ...


class CountedFile(RawIOBase):
    """A new file that only its owner may read; counts, hashes, and refuses to grow too large.

    Raises:
        ExportRefusedError: the file would be larger than allowed.
        OSError: the disk is full, or nearly.
    """

    def __init__(self, path: Path, config: ExportConfig) -> None:
        super().__init__()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._config = config
        self._path = path
        self._hash = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "wb")
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of it."""
        size = memoryview(data).nbytes
        if self.size_bytes + size > self._config.max_bytes:
            raise ExportRefusedError(
                f"The file would be larger than {self._config.max_bytes // _MIB:,} MiB: take a shorter span."
            )
        if shutil.disk_usage(self._path.parent).free - size < self._config.min_free_mb * _MIB:
            raise OSError(f"less than {self._config.min_free_mb} MiB would be left on the disk of exports")
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += size
        return size

    def complete(self) -> str:
        """Bring all of it to the disk and return its SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class CsvWriter:
    """Lines behind lines; the first piece brings the line of names."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._has_names = False

    def add(self, piece: bytes) -> int:
        """Add lines: no cell holds a line break (see `event_reads.cell_text`)."""
        self._file.write(piece)
        rows = piece.count(b"\n")
        if not self._has_names:
            self._has_names = True
            rows -= 1
        return rows

    def finish(self) -> None:
        """There is nothing behind the last line."""


def writer_of(file_format: FileFormat, file: CountedFile) -> FileWriter:
    """Return what puts pieces of this format together."""
    binary = cast("BinaryIO", file)
    return ParquetJoiner(binary) if file_format is FileFormat.PARQUET else CsvWriter(binary)
