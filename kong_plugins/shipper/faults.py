"""The last thing that went wrong, told now and then and not twenty times a second."""

from typing import Any

import structlog

from kong_plugins.shipper.logs import redact_text

REPEAT_SECONDS = 60.0

log = structlog.get_logger()


class Faults:
    """`last` is for the health page and stays after the fault is over."""

    def __init__(self) -> None:
        self.last = ""
        self._told_at: dict[str, float] = {}

    def note(self, message: str, *, now: float, **more: Any) -> None:
        """Log an error, unless it was logged less than a minute ago (`now`: monotonic seconds)."""
        self.last = redact_text(message)
        self._told_at = {told: at for told, at in self._told_at.items() if now - at < REPEAT_SECONDS}
        if message not in self._told_at:
            self._told_at[message] = now
            log.error(message, **more)
