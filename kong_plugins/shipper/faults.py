"""The last thing that went wrong, told once and not twenty times a second."""

from typing import Any

import structlog

from kong_plugins.shipper.logs import redact_text

log = structlog.get_logger()


class Faults:
    """`last` is for the health page and stays after the fault is over."""

    def __init__(self) -> None:
        self.last = ""
        self._told: set[str] = set()

    def note(self, message: str, **more: Any) -> None:
        """Log an error, unless it was logged since things last went well."""
        self.last = redact_text(message)
        if message not in self._told:
            self._told.add(message)
            log.error(message, **more)

    def all_well(self) -> None:
        """Everything worked again: the same fault is news from now on."""
        self._told.clear()
