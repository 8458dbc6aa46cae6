"""What an application reports, as one line of CloudEvents JSON. Pure, but for ids and their clock."""

import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kong_monetize_client.errors import EventError

MAX_ID_LENGTH = 256
MAX_TYPE_LENGTH = 200
MAX_SUBJECT_LENGTH = 200
MAX_ENDPOINT_LENGTH = 300
MAX_UNITS = 10**12
MAX_DIMENSIONS = 16
MAX_PROPERTIES = 32
MAX_PROPERTY_LENGTH = 256
RESERVED_UNITS = frozenset({"requests", "bytes_in", "bytes_out", "upstream_ms"})

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PROPERTY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,47}")
_PRODUCT = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SECRET = re.compile(r"km_(live|test)_[0-9A-Za-z]{38}|kmt_[A-Za-z0-9_-]{43}")


def new_id(now: datetime) -> str:
    """Return 26 characters that sort by time: 48 bits of milliseconds, 80 random bits."""
    value = (int(now.timestamp() * 1000) << 80) | secrets.randbits(80)
    digits = []
    for _ in range(26):
        value, digit = divmod(value, 32)
        digits.append(_CROCKFORD[digit])
    return "".join(reversed(digits))


def encode_event(
    event_type: str,
    *,
    event_id: str,
    source: str,
    subject: str,
    time: datetime,
    timed_by_client: bool = False,
    units: Mapping[str, int] | None = None,
    properties: Mapping[str, str] | None = None,
    product: str | None = None,
    mode: str | None = None,
    endpoint: str | None = None,
) -> bytes:
    """Return the event as one line of JSON, without its end.

    `timed_by_client`: the time is only when it was reported. The same event reported twice differs in nothing
    else, and the server must not take the second for another.

    Raises:
        EventError: the server would not take it.
    """
    _check_text("type", event_type, MAX_TYPE_LENGTH)
    _check_text("id", event_id, MAX_ID_LENGTH)
    _check_text("source", source, MAX_ID_LENGTH)
    _check_text("subject", subject, MAX_SUBJECT_LENGTH)
    data: dict[str, Any] = {}
    if product is not None:
        _check_text("product", product, MAX_ID_LENGTH)
        if not _PRODUCT.fullmatch(product):
            raise EventError("product must be the code of an API product")
        data["product"] = product
    if mode is not None:
        if mode not in {"live", "test"}:
            raise EventError("mode must be 'live' or 'test'")
        data["mode"] = mode
    if endpoint is not None:
        _check_text("endpoint", endpoint, MAX_ENDPOINT_LENGTH)
        data["endpoint"] = endpoint
    if units:
        data["units"] = _checked_units(units)
    if properties:
        data["properties"] = _checked_properties(properties)
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "subject": subject,
        "time": _time_text(time),
        **({"timedby": "client"} if timed_by_client else {}),
        "data": data,
    }
    line = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    if _SECRET.search(line):
        raise EventError("an event must not hold an API key or a token; name keys by their id")
    return line.encode()


def _time_text(time: object) -> str:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise EventError("time must be a datetime with a time zone")
    try:
        return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError as error:
        raise EventError("there is no such time in UTC") from error


def _check_text(name: str, text: object, length: int, *, empty: bool = False) -> None:
    if not isinstance(text, str) or len(text) > length or not (text or empty):
        raise EventError(f"{name} must be a text of {0 if empty else 1} to {length} characters")
    if _CONTROL.search(text):
        raise EventError(f"{name} must not hold control characters")


def _checked_units(units: Mapping[Any, Any]) -> dict[str, int]:
    if len(units) > MAX_DIMENSIONS:
        raise EventError(f"an event may have at most {MAX_DIMENSIONS} units")
    for name, value in units.items():
        if not isinstance(name, str) or not _UNIT.fullmatch(name):
            raise EventError(
                "the name of a unit must be a lower-case letter, then letters, digits or _, 32 at most"
            )
        if name in RESERVED_UNITS:
            raise EventError(f"the gateway itself counts {name}; use another name")
        if type(value) is not int or not 0 <= value <= MAX_UNITS:
            raise EventError(f"{name} must be a whole number from 0 to 10^12")
    return dict(units)


def _checked_properties(properties: Mapping[Any, Any]) -> dict[str, str]:
    if len(properties) > MAX_PROPERTIES:
        raise EventError(f"an event may have at most {MAX_PROPERTIES} properties")
    for name, text in properties.items():
        if not isinstance(name, str) or not _PROPERTY.fullmatch(name):
            raise EventError("the name of a property must be a letter, then letters, digits, _ . or -, 48 at most")
        _check_text(f"property {name}", text, MAX_PROPERTY_LENGTH, empty=True)
    return dict(properties)
