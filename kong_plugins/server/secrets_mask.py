"""Keeping configured secrets out of texts that go to a log."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SECRET_NAME: Final = re.compile(
    r"secret|password|passwd|token|credential|private|apikey|api_key|_key$|url$|dsn", re.IGNORECASE
)
_SHORTEST: Final = 4
MASK: Final = "[redacted]"


def mask_secrets(text: str, *, config: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the text without the values of fields that the schema marks as secret, or that are named like one."""
    marked = set(_marked_fields(schema))
    for name, value in _leaves(config):
        if len(value) >= _SHORTEST and (name in marked or _SECRET_NAME.search(name)):
            text = text.replace(value, MASK)
    return text


def _marked_fields(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            if isinstance(child, Mapping) and (child.get("encrypted") or child.get("referenceable")):
                yield name
            yield from _marked_fields(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _marked_fields(child)


def _leaves(config: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _leaves(value, str(key))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _leaves(value, name)
    elif isinstance(config, str):
        yield name, config
