"""Bodies as values, for methods the protocol has no call for: Kong's Lua side decodes and encodes them itself."""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from kong_plugins.server.errors import PdkError

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def decode_body(data: bytes, content_type: str | None) -> Any:
    """Return what a form or a JSON body holds; a repeated form field is a list.

    Raises PdkError where the content type is another or the body is not what it says.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == FORM:
        fields: dict[str, Any] = {}
        for name, value in parse_qsl(data.decode("utf-8", "surrogateescape"), keep_blank_values=True):
            _add(fields, name, value)
        return fields
    if kind == JSON:
        try:
            return json.loads(data)
        except ValueError:
            raise PdkError("the body is no JSON") from None
    raise PdkError(f"no body of the content type {kind or '(none)'} can be decoded")


def encode_body(values: Mapping[str, object], content_type: str) -> bytes:
    """Return a form or JSON body; PdkError where the content type is another or a value does not fit."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        return urlencode({name: _form_value(value) for name, value in values.items()}, doseq=True).encode()
    if kind == JSON:
        try:
            return json.dumps(values).encode()
        except (TypeError, ValueError):
            raise PdkError("the values are no JSON") from None
    raise PdkError(f"no body of the content type {kind or '(none)'} can be made")


def _add(fields: dict[str, Any], name: str, value: str) -> None:
    if name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]


def _form_value(value: object) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [str(one) for one in value]
    return str(value)
