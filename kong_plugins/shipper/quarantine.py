"""Lines nobody could read, kept for people: redacted, cut, and bounded on disk.

The line may hold anything: the half of a key, headers (a file-log without the privacy expression), a query. So
more is struck out here than a key of the right length.
"""

import json
import re
from pathlib import Path

MAX_LINE_CHARACTERS = 4096

_KEY_OR_PART = re.compile(r"km(?:_|%5[fF]|\\u005[fF])(?:live|test)(?:_|%5[fF]|\\u005[fF])[0-9A-Za-z%]*")
_SECRET_HEADER = re.compile(
    r'("(?:[a-z0-9-]*(?:authorization|cookie|api-?key|token|secret|password)[a-z0-9-]*)"\s*:\s*)'
    r'("(?:[^"\\]|\\.)*"?|\[[^\]]*\]?)',
    re.IGNORECASE,
)
_QUERY = re.compile(r"\?[^\"\s]*")
_QUERYSTRING = re.compile(r'("querystring"\s*:\s*)\{[^}]*\}?')


class Quarantine:
    """A file of JSON lines in `rejected/`; when it is full it becomes the one older file that is kept."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.path = directory / "rejected.jsonl"
        self._older = directory / "rejected.1.jsonl"
        self._max_bytes = max_bytes // 2

    def keep(self, *, segment: str, offset: int, reason: str, raw: bytes, now_ms: int) -> None:
        """Append one line.

        Raises:
            OSError: the disk is full or away; the line is lost to people, and was no usage anyway.
        """
        record = {
            "rejected_at_ms": now_ms,
            "segment": segment,
            "offset": offset,
            "reason": reason,
            "line": redact_line(raw),
        }
        if self.path.exists() and self.path.stat().st_size >= self._max_bytes:
            self.path.replace(self._older)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def redact_line(raw: bytes) -> str:
    """Return the beginning of a bad line without keys (whole, cut or encoded), secret headers and queries."""
    # Twice as much as is kept: what is struck out makes room, and no key is cut before it is found.
    text = raw[: 2 * MAX_LINE_CHARACTERS].decode("utf-8", "replace")
    text = _KEY_OR_PART.sub("[redacted key]", text)
    text = _SECRET_HEADER.sub(r'\1"[redacted]"', text)
    text = _QUERYSTRING.sub(r'\1"[redacted]"', text)
    return _QUERY.sub("?[redacted]", text)[:MAX_LINE_CHARACTERS]
