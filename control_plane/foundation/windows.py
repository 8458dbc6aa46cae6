"""Rate windows as plans, subscriptions and keys carry them: rules and the JSON form of the tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from control_plane.foundation.errors import ValidationFailedError
from gateway_contract.records import Window

MAX_WINDOWS = 8
MAX_LIMIT = 1_000_000_000
MIN_WINDOW_MS = 1_000
MAX_WINDOW_MS = 86_400_000
PER_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


def check_windows(windows: Iterable[Window], *, field: str = "windows") -> tuple[Window, ...]:
    """Return the windows, shortest first.

    Raises:
        ValidationFailedError: a limit below 1, a window not between 1 s and 1 day, two windows of one length.
    """
    checked = tuple(windows)
    if len(checked) > MAX_WINDOWS:
        raise ValidationFailedError(field, f"must have at most {MAX_WINDOWS} entries")
    seen: set[int] = set()
    for index, window in enumerate(checked):
        if not 1 <= window.limit <= MAX_LIMIT:
            raise ValidationFailedError(f"{field}[{index}].limit", f"must be between 1 and {MAX_LIMIT}")
        if not MIN_WINDOW_MS <= window.window_ms <= MAX_WINDOW_MS:
            raise ValidationFailedError(
                f"{field}[{index}].window_ms", f"must be between {MIN_WINDOW_MS} and {MAX_WINDOW_MS}"
            )
        if window.window_ms in seen:
            raise ValidationFailedError(f"{field}[{index}]", "another limit has the same window")
        seen.add(window.window_ms)
    return tuple(sorted(checked, key=lambda window: window.window_ms))


def windows_to_json(windows: Iterable[Window]) -> list[dict[str, Any]]:
    """Return what stands in a `windows` column."""
    return [{"limit": window.limit, "window_ms": window.window_ms} for window in windows]


def windows_from_json(values: Iterable[Mapping[str, Any]]) -> tuple[Window, ...]:
    """Return the windows of a `windows` column."""
    return tuple(Window(limit=value["limit"], window_ms=value["window_ms"]) for value in values)
