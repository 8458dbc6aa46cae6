"""The spool directory on disk: identity, lock, live files, segments.

usage.log, meter.log, *.log   live files: Kong's file-log and km-usage-meter append to them
segments/<ms>-<random>.seg    renamed live files; the name is never used again and is what positions refer to
rejected/                     lines nobody could read, redacted
shipper-id, shipper.lock      who ships from here, and that only one does
"""

import fcntl
import os
import re
import secrets
from pathlib import Path

LIVE_SUFFIX = ".log"
SEGMENT_SUFFIX = ".seg"
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 26
_ID = re.compile(rf"shp_[{_ID_ALPHABET}]{{{_ID_LENGTH}}}")


class SpoolError(Exception):
    """The spool directory cannot be used; the message says what to do."""


class SpoolBusyError(SpoolError):
    """Another shipper works on this directory."""


class SpoolIdentityError(SpoolError):
    """The file `shipper-id` holds something else than a shipper's id."""


class Spool:
    """One spool directory, locked for this process until `close` or its end, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Create what is missing, take the lock and read or draw the identity.

        Raises:
            SpoolBusyError: another shipper holds the lock.
            SpoolIdentityError: `shipper-id` is damaged.
            OSError: the directory cannot be made or written.
        """
        self.directory = directory
        self.segments_directory = directory / "segments"
        self.rejected_directory = directory / "rejected"
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self.segments_directory.mkdir(exist_ok=True)
        self.rejected_directory.mkdir(exist_ok=True)
        self.shipper_id = self._identity()

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock)

    def live_files(self) -> list[tuple[Path, int]]:
        """Return the live files that hold something, with their sizes in bytes."""
        found = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(LIVE_SUFFIX) and entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    if size:
                        found.append((Path(entry.path), size))
        return found

    def take(self, live_file: Path, *, now_ms: int) -> Path:
        """Rename a live file to a new segment, atomically; appends under way still land in it."""
        segment = self.segments_directory / f"{now_ms:013d}-{secrets.token_hex(8)}{SEGMENT_SUFFIX}"
        live_file.rename(segment)
        return segment

    def segment_files(self) -> list[Path]:
        """Return all segments, oldest name first."""
        return sorted(self.segments_directory.glob(f"*{SEGMENT_SUFFIX}"))

    def _take_lock(self) -> int:
        descriptor = os.open(self.directory / "shipper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise SpoolBusyError(
                f"another km-shipper (process {holder}) works on {self.directory}: one directory, one shipper"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _identity(self) -> str:
        path = self.directory / "shipper-id"
        if not path.exists():
            drawn = "shp_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
            draft = self.directory / "shipper-id.new"
            with draft.open("w", encoding="ascii") as file:
                file.write(drawn + "\n")
                file.flush()
                # The one file whose loss of contents nobody could repair.
                os.fsync(file.fileno())
            draft.rename(path)
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if _ID.fullmatch(text) is None:
            raise SpoolIdentityError(
                f"{path} holds no shipper id; restore it, or delete it once {self.segments_directory} is empty"
            )
        return text
