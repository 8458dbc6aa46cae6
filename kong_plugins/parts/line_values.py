"""What of a request's log may stand in a usage line: texts made safe to keep, and headers picked by name.

No API key gets through, nor anything that has no UTF-8 form.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from gateway_contract.api_keys import redact_api_keys
from gateway_contract.file_log import UNIT_FIELD_PREFIX
from gateway_contract.receipts import MAX_LENGTH as MAX_RECEIPT_LENGTH
from gateway_contract.usage_lines import MAX_PATH_LENGTH

MAX_UNIT_LENGTH = 64
# Stands for a unit that is too long to be a number; no judge can take it for one.
TOO_LONG_UNIT = "(too long)"

_RECEIPT_TEXT = re.compile(rf"[A-Za-z0-9._~-]{{1,{MAX_RECEIPT_LENGTH}}}")
_DIMENSION = re.compile(r"[a-z][a-z0-9_]{0,31}")


class UnreadableLineError(ValueError):
    """A log line cannot become a usage line; `field` names what is missing or of the wrong kind.

    The message never repeats the value: it may hold a key.
    """

    def __init__(self, field: str) -> None:
        super().__init__(f"cannot read {field}")
        self.field = field


def receipt_text(text: str | None) -> str:
    """The text, or "" where no receipt can look so, or it holds a key."""
    if not text or _RECEIPT_TEXT.fullmatch(text) is None:
        return ""
    if "km_" in text and redact_api_keys(text) != text:
        return ""
    return text


def path_text(text: str) -> str:
    """Cut off the query, redact keys (percent-encoded ones too), then cut: a key cut in half would stay."""
    if "?" in text:
        text = text.partition("?")[0]
    if "km_" in text:
        text = redact_api_keys(text)
    if "%" in text:
        plain = unquote(text)
        if redact_api_keys(plain) != plain:
            text = redact_api_keys(plain)
    return encodable(text[:MAX_PATH_LENGTH])


def single_header(headers: Mapping[str, Any] | None, name: str, where: str) -> str | None:
    """The header's value; None where it is absent, or repeated with values that differ."""
    value = None if headers is None else headers.get(name)
    if isinstance(value, list):
        value = value[0] if value and all(other == value[0] for other in value) else None
    if value is None or isinstance(value, str):
        return value
    raise UnreadableLineError(f"{where}.{name}")


def named_units(named: Mapping[str, Any]) -> dict[str, str]:
    """Units by dimension, of the file-log form (`km_unit_tokens`)."""
    units = {}
    for name, value in named.items():
        if value is None:
            continue
        if not isinstance(value, str):
            raise UnreadableLineError("km_unit")
        units[checked_dimension(name.removeprefix(UNIT_FIELD_PREFIX))] = unit_text(value)
    return units


def header_units(headers: Mapping[str, Any] | None, unit_headers: Mapping[str, str]) -> dict[str, str]:
    """Units by dimension, of the serialized form."""
    units = {}
    for dimension, header in unit_headers.items():
        value = None if headers is None else headers.get(header.lower())
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            # as HTTP joins a repeated field: no number, so whoever judges it sees that it was repeated
            value = ", ".join(value)
        if value is None:
            continue
        if not isinstance(value, str):
            raise UnreadableLineError(f"response.headers.{header.lower()}")
        units[checked_dimension(dimension)] = unit_text(value)
    return units


def first_header(headers: Mapping[str, Any] | None, names: Iterable[str]) -> str | None:
    """The first of these headers that is there; of a repeated one its first value, as Kong's PDK gives it."""
    for name in names:
        value = None if headers is None else headers.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is None:
            continue
        if not isinstance(value, str):
            raise UnreadableLineError(f"response.headers.{name}")
        return value
    return None


def checked_dimension(name: str) -> str:
    """The name. Raises UnreadableLineError where it is none of a dimension."""
    if _DIMENSION.fullmatch(name) is None:
        raise UnreadableLineError("km_unit")
    return name


def unit_text(text: str) -> str:
    """What an upstream said, to be judged later: short, without keys."""
    return TOO_LONG_UNIT if len(text) > MAX_UNIT_LENGTH else encodable(redact_api_keys(text))


def encodable(text: str) -> str:
    """Lone surrogates (a JSON escape can make them) have no UTF-8 form."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
