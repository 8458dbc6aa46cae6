"""From the bytes of a segment to batches of usage lines. Pure, apart from reading the file.

Only whole lines are taken. A line nobody can read is set aside with its reason and covered by the batch's end, so
that it cannot hold up the lines behind it. A line glued to the torn rest of an earlier one (a full disk) is told
from it and kept.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from gateway_contract.usage_lines import MAX_BYTES_PER_ENTRY, MAX_LINES_PER_ENTRY
from kong_plugins.parts.line_values import UnreadableLineError
from kong_plugins.parts.usage_lines import encode_usage_line, read_usage_line

CHUNK_BYTES = 1024 * 1024
# No JSON object that begins inside a string looks like this: quotes are escaped there.
_OBJECT_START = b'{"'
_MAX_GLUED_STARTS = 64
_TORN_PREVIEW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """Bytes of a segment that are no usage line; `raw` may hold keys and may be only the beginning."""

    offset: int
    reason: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one stream entry carries: `lines` joined by newlines, made of the segment's bytes [start, end)."""

    start: int
    end: int
    count: int
    lines: bytes
    rejected: tuple[RejectedLine, ...]


def read_batch(path: Path, *, start: int, max_bytes: int = MAX_BYTES_PER_ENTRY) -> Batch | None:
    """Return the next batch of whole lines from an offset, or None where no whole line follows.

    Reads at most `CHUNK_BYTES` into memory; a longer line is rejected unread. A batch of more than one line has at
    most `max_bytes` of them.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        chunk = os.pread(file.fileno(), CHUNK_BYTES, start)
        batch = cut_batch(chunk, start=start, max_bytes=max_bytes)
        if batch is None and len(chunk) == CHUNK_BYTES:
            return _pass_oversized(file.fileno(), chunk, start)
    return batch


def read_torn_tail(path: Path, *, start: int, end: int) -> Batch:
    """Return a batch of what stands behind the last newline of a final segment.

    Where only the newline is missing the line is good; anything else is rejected as torn.
    """
    with path.open("rb", buffering=0) as file:
        raw = os.pread(file.fileno(), min(end - start, CHUNK_BYTES), start)
    lines, rejected = _read_line(raw, start)
    if rejected:
        rejected = [RejectedLine(start, "torn", raw[:_TORN_PREVIEW_BYTES])]
    return Batch(start, end, len(lines), b"\n".join(lines), tuple(rejected))


def cut_batch(chunk: bytes, *, start: int, max_bytes: int = MAX_BYTES_PER_ENTRY) -> Batch | None:
    """Cut a batch from bytes that stand at `start` in their segment: at most as much as one entry may carry."""
    whole = chunk.rfind(b"\n") + 1
    if not whole:
        return None
    lines: list[bytes] = []
    rejected: list[RejectedLine] = []
    size, position = 0, 0
    for raw in chunk[: whole - 1].split(b"\n"):
        if len(lines) + len(rejected) >= MAX_LINES_PER_ENTRY:
            break
        found, refused = _read_line(raw, start + position)
        added = sum(map(len, found)) + len(found)
        if size + added > max_bytes and lines:
            break
        lines += found
        rejected += refused
        size += added
        position += len(raw) + 1
    return Batch(start, start + position, len(lines), b"\n".join(lines), tuple(rejected))


def _read_line(raw: bytes, offset: int) -> tuple[list[bytes], list[RejectedLine]]:
    if not raw:
        return [], []
    try:
        return [encode_usage_line(read_usage_line(raw))], []
    except UnreadableLineError as error:
        reason = str(error)
    glued = _find_glued(raw)
    if glued is None:
        return [], [RejectedLine(offset, reason, raw)]
    at, line = glued
    return [line], [RejectedLine(offset, "torn", raw[:at])]


def _find_glued(raw: bytes) -> tuple[int, bytes] | None:
    """Find the good line at the end of one that begins torn; only a whole object reaches exactly to the end."""
    at = raw.find(_OBJECT_START, 1)
    for _ in range(_MAX_GLUED_STARTS):
        if at < 0:
            return None
        try:
            return at, encode_usage_line(read_usage_line(raw[at:]))
        except UnreadableLineError:
            at = raw.find(_OBJECT_START, at + 1)
    return None


def _pass_oversized(descriptor: int, first: bytes, start: int) -> Batch | None:
    """Reject a line longer than a chunk, once its end is written."""
    position = start + len(first)
    while chunk := os.pread(descriptor, CHUNK_BYTES, position):
        newline = chunk.find(b"\n")
        if newline >= 0:
            rejected = RejectedLine(start, "too long", first[:_TORN_PREVIEW_BYTES])
            return Batch(start, position + newline + 1, 0, b"", (rejected,))
        position += len(chunk)
    return None
