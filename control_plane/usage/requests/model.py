"""Which requests are wanted. Pure."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Self

from control_plane.foundation.clock import to_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.model import MAX_STATUS

_STATUSES = re.compile(r"([1-9])xx|(\d{1,3})(?:-(\d{1,3}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilters:
    """Which events are wanted; '' is any. Statuses are inclusive: 500 to 599 are the failures.

    `event_ids` and `request_ids` name several; empty is any.
    """

    mode: str = ""
    product: str = ""
    key_id: str = ""
    endpoint: str = ""
    outcome: str = ""
    request_id: str = ""
    event_id: str = ""
    lowest_status: int = 0
    highest_status: int = MAX_STATUS
    event_ids: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()

    def with_statuses(self, text: str) -> Self:
        """Return these filters for `404`, `4xx` or `400-428`; '' is any status.

        Raises:
            ValidationFailedError: field `status`: it is none of these.
        """
        if not text:
            return self
        lowest, highest = parse_statuses(text)
        return replace(self, lowest_status=lowest, highest_status=highest)

    def as_dict(self) -> dict[str, Any]:
        """Return what is filtered by, JSON-ready: fields that ask for anything are left out."""
        found = asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value != getattr(NO_FILTERS, name)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the filters that `as_dict` wrote."""
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**read)


NO_FILTERS = EventFilters()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSpan:
    """Events of an account (None: of all, '': of nobody) that occurred in [start, end)."""

    account_id: str | None
    start: datetime
    end: datetime

    @property
    def start_ms(self) -> int:
        return to_ms(self.start)

    @property
    def end_ms(self) -> int:
        return to_ms(self.end)


def parse_statuses(text: str) -> tuple[int, int]:
    """Return the lowest and the highest status of `404`, `4xx` or `400-428`.

    Raises:
        ValidationFailedError: field `status`: it is none of these, or the second is below the first.
    """
    match = _STATUSES.fullmatch(text)
    if match is None:
        raise ValidationFailedError("status", "must be like 404, 4xx or 400-428")
    if match[1]:
        return int(match[1]) * 100, int(match[1]) * 100 + 99
    lowest = int(match[2])
    highest = int(match[3]) if match[3] else lowest
    if highest < lowest:
        raise ValidationFailedError("status", "must not end below its beginning")
    return lowest, highest
