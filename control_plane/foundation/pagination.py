"""Keyset pagination: a cursor says after which row to go on, so pages neither skip nor repeat rows."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from control_plane.foundation.clock import as_utc
from control_plane.foundation.errors import ValidationFailedError

MAX_PAGE_SIZE = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page; `next_cursor` is None on the last."""

    items: tuple[T, ...]
    next_cursor: str | None


def encode_cursor(*values: str | int | datetime) -> str:
    """Return an opaque URL-safe cursor of a row's sort values."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, *kinds: type) -> tuple[str | int | datetime, ...]:
    """Return the sort values of a cursor, of the kinds named (`str`, `int` or `datetime`).

    Raises:
        ValidationFailedError: field `cursor`: not one of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        plain = json.loads(base64.urlsafe_b64decode(padded.encode()))
        values = tuple(_as_kind(value, kind) for value, kind in zip(plain, kinds, strict=True))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationFailedError("cursor", "is not a cursor that this list has given out") from error
    return values


def page_of(
    rows: Sequence[T], *, limit: int, sort_values: Callable[[T], tuple[str | int | datetime, ...]]
) -> Page[T]:
    """Make a page of rows that were read with `LIMIT limit + 1`."""
    items = tuple(rows[:limit])
    more = len(rows) > limit
    return Page(items, encode_cursor(*sort_values(items[-1])) if more and items else None)


def _as_kind(value: object, kind: type) -> str | int | datetime:
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return as_utc(moment)
    elif kind is str and isinstance(value, str):
        value.encode()  # half a character is a ValueError here, not in the store
        return value
    elif kind is int and type(value) is int and 0 <= value < 2**63:
        return value
    raise ValueError(f"{value!r} is not a {kind.__name__}")
