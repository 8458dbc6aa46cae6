"""Segment files of the buffer: lines with a checksum, and where reading goes on. Pure but for `list_segments`."""

import re
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

SUFFIX = ".events"
_NAME = re.compile(r"(\d{16})\.events")
_CHECKSUM_LENGTH = 8


def segment_name(number: int) -> str:
    return f"{number:016d}{SUFFIX}"


def list_segments(directory: Path) -> list[int]:
    """Return the numbers of the segments in a directory, in order."""
    return sorted(int(found[1]) for path in directory.iterdir() if (found := _NAME.fullmatch(path.name)))


def seal(line: bytes) -> bytes:
    """Return a line as it stands in a file: its checksum, itself, a newline."""
    return b"%08x %b\n" % (crc32(line), line)


def unseal(raw: bytes) -> bytes | None:
    """Return the line of a file's line (without its newline), or None where it was damaged."""
    checksum, space, line = raw[:_CHECKSUM_LENGTH], raw[_CHECKSUM_LENGTH : _CHECKSUM_LENGTH + 1], raw[9:]
    try:
        whole = space == b" " and int(checksum, 16) == crc32(line)
    except ValueError:
        whole = False
    return line if whole else None


def read_lines(text: bytes, start: int) -> Iterator[tuple[bytes | None, int]]:
    """Yield (line, its end) for every line that has ended, None for a damaged one; the text begins at `start`."""
    position = 0
    while (newline := text.find(b"\n", position)) >= 0:
        yield unseal(text[position:newline]), start + newline + 1
        position = newline + 1


def encode_position(segment: int, offset: int) -> bytes:
    return seal(f"{segment} {offset}".encode())


def decode_position(text: bytes) -> tuple[int, int]:
    """Return (segment, offset), or (0, 0) where it cannot be read: then events are sent twice, and count once."""
    line = unseal(text.rstrip(b"\n"))
    if line is None:
        return 0, 0
    segment, _, offset = line.partition(b" ")
    return int(segment), int(offset)
