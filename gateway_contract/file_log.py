"""The one privacy expression that Kong's bundled `file-log` must carry, and its inverse.

Left alone, file-log writes usable keys (request headers, query string, URI, cookies). With exactly one
`custom_fields_by_lua` entry, key `request.headers`, it writes none, and adds the path, both receipts, the unit
headers and the one by which an upstream says that it repeated an earlier answer. One entry, because Kong compiles
every entry at every request.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

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
_READ_HEADER = r"kong\.response\.get_header\('([a-z0-9-]{1,64})'\)"
_REPLAY = re.compile(rf" s\('km_replayed',({_READ_HEADER}(?: or {_READ_HEADER})*)\)")

UNIT_FIELD_PREFIX = "km_unit_"
REPLAY_FIELD = "km_replayed"


@dataclass(frozen=True, slots=True)
class LoggedHeaders:
    """What an expression reads from the answer: `units` by dimension, `replay` the first of them that is there."""

    units: dict[str, str] = field(default_factory=dict)
    replay: tuple[str, ...] = ()


class UnitHeaderError(ValueError):
    """A dimension's or header's name cannot stand in the privacy expression; the message names it."""


def render_privacy_expression(
    unit_headers: dict[str, str] | None = None, replay_headers: Iterable[str] = ()
) -> str:
    """Return the expression. `unit_headers` maps a dimension (`tokens`) to the upstream's answer header.

    `replay_headers` (`idempotent-replayed`) are looked for in the order of their names; the first one counts.

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
    return _HEAD + "".join(units) + _replay(replay_headers) + _TAIL


def parse_privacy_expression(text: str) -> LoggedHeaders | None:
    """Return the headers that an expression of `render_privacy_expression` reads, or None for other Lua."""
    if not (text.startswith(_HEAD) and text.endswith(_TAIL)):
        return None
    middle = text[len(_HEAD) : -len(_TAIL)]
    replay = _REPLAY.search(middle)
    headers = LoggedHeaders(
        units=dict(_UNIT.findall(middle)),
        replay=tuple(re.findall(_READ_HEADER, replay[1])) if replay else (),
    )
    return headers if render_privacy_expression(headers.units, headers.replay) == text else None


def _replay(headers: Iterable[str]) -> str:
    names = sorted({header.lower() for header in headers})
    for name in names:
        if not _HEADER.fullmatch(name):
            raise UnitHeaderError(f"replay header {name!r}: use letters, digits and -")
    if not names:
        return ""
    return f" s('{REPLAY_FIELD}'," + " or ".join(f"kong.response.get_header('{name}')" for name in names) + ")"
