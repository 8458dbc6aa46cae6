"""The one privacy expression that Kong's bundled `file-log` must carry, and its inverse.

Left alone, file-log writes usable keys (request headers, query string, URI, cookies). With exactly one
`custom_fields_by_lua` entry, key `request.headers`, it writes none, and adds the path, both receipts and the
unit headers. One entry, because Kong compiles every entry at every request.
"""

import re

EXPRESSION_KEY = "request.headers"

_REMOVED = ("request.querystring", "request.uri", "request.url", "upstream_uri", "response.headers", "tries")
_HEAD = (
    "local s=kong.log.set_serialize_value "
    + " ".join(f"s('{name}',nil)" for name in _REMOVED)
    + " s('path',kong.request.get_path())"
    + " s('km_receipt',kong.request.get_header('x-km-receipt'))"
    + " s('km_receipt_out',kong.response.get_header('x-km-receipt'))"
)
_TAIL = " return nil"
_UNIT = re.compile(r" s\('km_unit_([a-z][a-z0-9_]{0,31})',kong\.response\.get_header\('([a-z0-9-]{1,64})'\)\)")
_DIMENSION = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HEADER = re.compile(r"[a-z0-9-]{1,64}")

UNIT_FIELD_PREFIX = "km_unit_"


class UnitHeaderError(ValueError):
    """A dimension or header name cannot stand in the privacy expression; the message names it."""


def render_privacy_expression(unit_headers: dict[str, str] | None = None) -> str:
    """Return the expression. `unit_headers` maps a dimension (`tokens`) to the upstream's answer header.

    Raises:
        UnitHeaderError: a name holds anything but lower-case letters, digits, `_` (dimension) or `-` (header).
    """
    units = []
    for dimension, header in sorted((unit_headers or {}).items()):
        if not _DIMENSION.fullmatch(dimension):
            raise UnitHeaderError(f"dimension {dimension!r}: use lower-case letters, digits and _")
        if not _HEADER.fullmatch(header.lower()):
            raise UnitHeaderError(f"unit header {header!r}: use letters, digits and -")
        units.append(f" s('{UNIT_FIELD_PREFIX}{dimension}',kong.response.get_header('{header.lower()}'))")
    return _HEAD + "".join(units) + _TAIL


def parse_privacy_expression(text: str) -> dict[str, str] | None:
    """Return the unit headers of an expression that `render_privacy_expression` wrote, or None for other Lua."""
    if not (text.startswith(_HEAD) and text.endswith(_TAIL)):
        return None
    middle = text[len(_HEAD) : -len(_TAIL)]
    found = dict(_UNIT.findall(middle))
    return found if render_privacy_expression(found) == text else None
