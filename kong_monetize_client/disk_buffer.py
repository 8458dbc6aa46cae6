"""A buffer on disk: append-only segment files, so that a process that is killed loses nothing it has reported.

    lock                      held as long as a client uses the directory
    0000000000000001.events   lines: CRC-32 (8 hex digits), space, the event as JSON
    sent                      how far the server has judged them: segment and offset
    rejected.jsonl            what the server will never take, with its reasons; yours to look at and to delete

`sent` may be behind (after a kill): then events are sent again, and the server knows their ids.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kong_monetize_client.buffers import Entry
from kong_monetize_client.directory_lock import DirectoryLock
from kong_monetize_client.errors import BufferFullError
from kong_monetize_client.options import Fsync
from kong_monetize_client.segments import (
    decode_position,
    encode_position,
    list_segments,
    read_lines,
    seal,
    segment_name,
)

SEGMENT_BYTES = 8 * 1024 * 1024
# a segment that is sent to its end is left behind once it is this large, to free its disk
WORTH_LEAVING_BYTES = 256 * 1024
READ_BYTES = 256 * 1024
SENT = "sent"
REJECTED = "rejected.jsonl"
_MODE = 0o600

log = logging.getLogger("kong_monetize_client")


class DiskBuffer:
    """See `buffers.Buffer`. One client at a time has a directory."""

    def __init__(self, directory: Path, *, max_bytes: int, fsync: Fsync) -> None:
        """Make or take over the directory.

        Raises:
            DirectoryInUseError: another client has it.
            OSError: it cannot be made or read.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = DirectoryLock(directory)
        try:
            self._directory = directory
            self._max_bytes = max_bytes
            self._fsync = fsync == "always"
            self._sizes = {number: self._size_of(segment_name(number)) for number in list_segments(directory)}
            self._read_segment, self._read_offset = self._saved_position()
            self._count = self._count_waiting()
            # never behind a line that a killed process may have torn
            self._torn = False
            self._write_segment = max([0, self._read_segment, *self._sizes]) + 1
            self._write_fd = self._new_segment(self._write_segment)
            self._rejected_bytes = self._size_of(REJECTED)
        except BaseException:
            self._lock.release()
            raise

    @property
    def count(self) -> int:
        return self._count

    def append(self, line: bytes) -> None:
        data = seal(line)
        # what is sent already will go with its segment
        used = sum(self._sizes.values()) - self._read_offset + self._rejected_bytes
        if used + len(data) > self._max_bytes:
            raise BufferFullError(
                f"the buffer holds {used} of {self._max_bytes} bytes: {self._count} events wait, "
                f"{self._rejected_bytes} bytes are rejected events in {REJECTED}"
            )
        try:
            if self._torn or self._sizes[self._write_segment] >= SEGMENT_BYTES:
                self._next_segment()
            _write(self._write_fd, data, fsync=self._fsync)
        except OSError as error:
            self._cut_off()
            raise BufferFullError(f"the buffer's disk cannot be written: {error.strerror}") from error
        self._sizes[self._write_segment] += len(data)
        self._count += 1

    def peek(self, *, max_events: int, max_bytes: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        for entry in self._waiting():
            size += len(entry.line) + 1
            if found and size > max_bytes:
                break
            found.append(entry)
            if len(found) >= max_events:
                break
        return found

    def drop(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self._count -= len(entries)
        self._read_segment, self._read_offset = entries[-1].segment, entries[-1].end
        if self._read_segment == self._write_segment and self._count == 0:
            self._leave_segment()
        self._save_position()
        for number in [number for number in self._sizes if number < self._read_segment]:
            try:
                self._path(number).unlink(missing_ok=True)
            except OSError as error:
                # it is sent all the same; the next time it may go
                log.warning("cannot delete a segment that is sent: %s", error.strerror)
            else:
                del self._sizes[number]

    def keep_rejected(self, lines: Sequence[bytes]) -> None:
        """Append to the rejects file. Raises OSError where it cannot: then they stay in the buffer."""
        descriptor = os.open(self._directory / REJECTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
        size = os.fstat(descriptor).st_size
        try:
            _write(descriptor, b"".join(line + b"\n" for line in lines), fsync=self._fsync)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
        finally:
            os.close(descriptor)
            self._rejected_bytes = self._size_of(REJECTED)

    def close(self) -> None:
        os.close(self._write_fd)
        self._lock.release()

    def _waiting(self) -> Iterator[Entry]:
        """Yield what was not dropped yet, in order; damaged lines are passed over."""
        for number in sorted(number for number in self._sizes if number >= self._read_segment):
            start = self._read_offset if number == self._read_segment else 0
            for line, end in self._lines(number, start):
                if line is not None:
                    yield Entry(line, number, end)

    def _lines(self, segment: int, start: int) -> Iterator[tuple[bytes | None, int]]:
        with self._path(segment).open("rb") as file:
            file.seek(start)
            rest = b""
            while text := file.read(READ_BYTES):
                rest += text
                taken = 0
                for line, end in read_lines(rest, start):
                    taken = end - start
                    yield line, end
                rest, start = rest[taken:], start + taken

    def _count_waiting(self) -> int:
        """Count what an earlier process has left, and tell of what was damaged."""
        waiting = damaged = 0
        for number in (number for number in self._sizes if number >= self._read_segment):
            end = self._read_offset if number == self._read_segment else 0
            for line, line_end in self._lines(number, end):
                waiting += line is not None
                damaged += line is None
                end = line_end
            damaged += end < self._sizes[number]  # the last line was torn: its report never returned
        if damaged:
            log.warning("passed over %d damaged lines in %s", damaged, self._directory)
        return waiting

    def _leave_segment(self) -> None:
        """Begin another segment where this one is sent to its end, so that it can be deleted."""
        if self._read_offset < WORTH_LEAVING_BYTES:
            return
        try:
            self._next_segment()
        except OSError:
            return  # the disk is full or gone: this segment will do
        self._read_segment, self._read_offset = self._write_segment, 0

    def _next_segment(self) -> None:
        number = self._write_segment + 1
        descriptor = self._new_segment(number)
        os.close(self._write_fd)
        self._write_fd, self._write_segment, self._torn = descriptor, number, False

    def _new_segment(self, number: int) -> int:
        descriptor = os.open(self._path(number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, _MODE)
        if self._fsync:
            try:
                _sync_directory(self._directory)
            except OSError:
                os.close(descriptor)
                with contextlib.suppress(OSError):  # else the next attempt finds it there, for ever
                    self._path(number).unlink()
                raise
        self._sizes[number] = 0
        return descriptor

    def _cut_off(self) -> None:
        """Take back what a failed write has left; where that fails too, nothing is written behind it."""
        try:
            os.ftruncate(self._write_fd, self._sizes[self._write_segment])
        except OSError:
            self._torn = True

    def _saved_position(self) -> tuple[int, int]:
        try:
            return decode_position((self._directory / SENT).read_bytes())
        except FileNotFoundError:
            return 0, 0

    def _save_position(self) -> None:
        new = self._directory / f"{SENT}.new"
        try:
            new.write_bytes(encode_position(self._read_segment, self._read_offset))
            new.replace(self._directory / SENT)
        except OSError as error:
            # at the next start they are sent again, and the server knows them
            log.warning("cannot note how far events are sent: %s", error.strerror)

    def _path(self, segment: int) -> Path:
        return self._directory / segment_name(segment)

    def _size_of(self, name: str) -> int:
        try:
            return (self._directory / name).stat().st_size
        except FileNotFoundError:
            return 0


def _write(descriptor: int, data: bytes, *, fsync: bool) -> None:
    """Write all of it; what a full disk takes a part of, the next attempt refuses."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    if fsync:
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
