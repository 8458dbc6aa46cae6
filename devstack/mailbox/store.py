"""Mails that came in, one file each, so that they outlive a restart."""

import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Final

KEPT: Final = 500
_NAME = re.compile(r"\d{6}")


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """`number` counts from 1 in the order of arrival."""

    number: int
    received_at: datetime
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=policy.default)

    def part(self, subtype: str) -> str:
        """Return the text of one form of the mail, '' where it has none: `plain` or `html`."""
        body = self.message.get_body(preferencelist=(subtype,))
        return "" if body is None else str(body.get_content())


class Mailbox:
    """The newest few hundred mails of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count(max((number for number, _ in self._files()), default=0) + 1)

    def keep(self, raw: bytes) -> int:
        """Write a mail down; returns its number."""
        number = next(self._numbers)
        path = self._directory / f"{number:06}.eml"
        partial = path.with_suffix(".part")
        partial.write_bytes(raw)
        partial.replace(path)
        for _, old in self._files()[:-KEPT]:
            old.unlink(missing_ok=True)
        return number

    def mails(self) -> list[ReceivedMail]:
        """Return all mails, newest first."""
        return [self._read(number, path) for number, path in reversed(self._files())]

    def mail(self, number: int) -> ReceivedMail | None:
        path = self._directory / f"{number:06}.eml"
        return self._read(number, path) if path.exists() else None

    def _files(self) -> list[tuple[int, Path]]:
        return sorted(
            (int(path.stem), path) for path in self._directory.glob("*.eml") if _NAME.fullmatch(path.stem)
        )

    def _read(self, number: int, path: Path) -> ReceivedMail:
        return ReceivedMail(number, datetime.fromtimestamp(path.stat().st_mtime, UTC), path.read_bytes())
