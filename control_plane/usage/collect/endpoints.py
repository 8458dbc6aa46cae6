"""Which endpoint was called: the product's path template, else the route's name.

A name is `GET /weather/v1/current/{city}`, as callers see the path. A product has at most 500 names, what comes
after that is `other`: rollups stay small whatever comes in. Raw paths are kept in the event.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from gateway_contract.usage_events import OTHER_ENDPOINT

MAX_NAMES = 500
MAX_NAME_LENGTH = 300
CACHED_PATHS = 65_536

_PARAMETER = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Template:
    """One operation of an OpenAPI document: method and path template."""

    method: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass(slots=True)
class _Node:
    """A place in the trie. Words are tried before patterns, patterns before a parameter."""

    words: dict[str, "_Node"] = field(default_factory=dict)
    patterns: dict[str, tuple[re.Pattern[str], "_Node"]] = field(default_factory=dict)
    parameter: "_Node | None" = None
    name: str | None = None

    def child(self, segment: str) -> "_Node":
        shape = _PARAMETER.sub("{}", segment)
        if shape == "{}":
            self.parameter = self.parameter or _Node()
            return self.parameter
        if "{}" not in shape:
            return self.words.setdefault(segment, _Node())
        if shape not in self.patterns:
            pattern = re.compile(".+".join(re.escape(word) for word in shape.split("{}")), re.DOTALL)
            self.patterns[shape] = (pattern, _Node())
            self.patterns = dict(sorted(self.patterns.items()))
        return self.patterns[shape][1]

    def find(self, segments: Sequence[str], depth: int = 0) -> str | None:
        if depth == len(segments):
            return self.name
        segment = segments[depth]
        after = self.words.get(segment)
        if after is not None and (name := after.find(segments, depth + 1)) is not None:
            return name
        for pattern, after in self.patterns.values():
            if pattern.fullmatch(segment) and (name := after.find(segments, depth + 1)) is not None:
                return name
        if self.parameter is not None and segment:
            return self.parameter.find(segments, depth + 1)
        return None


def path_segments(path: str) -> list[str]:
    """Split a path; a slash at the end makes no difference."""
    return path.strip("/").split("/") if path.strip("/") else []


class PathMatcher:
    """The path templates of one product, compiled. Where several fit, the most literal one from the left wins."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._roots: dict[str, _Node] = {}
        for template in templates:
            node = self._roots.setdefault(template.method.upper(), _Node())
            for segment in path_segments(template.path):
                node = node.child(segment)
            node.name = node.name or template.name[:MAX_NAME_LENGTH]

    def find(self, method: str, path: str) -> str | None:
        """Return the template's name, or None where none fits."""
        root = self._roots.get(method)
        return root.find(path_segments(path)) if root else None


class EndpointNames:
    """Endpoint names of all products; immutable but for a cache and the route names it has met.

    Route names that the catalog does not know are taken as they come until the product has 500 names. Two
    processes may then differ in what they call `other`, never in what they count.
    """

    def __init__(self, products: Mapping[str, Sequence[Template]] | None = None) -> None:
        """`products` maps a product's code to its templates; those beyond 500 are not looked at."""
        kept = {code: tuple(templates)[:MAX_NAMES] for code, templates in (products or {}).items()}
        self._matchers = {code: PathMatcher(templates) for code, templates in kept.items()}
        self._routes: dict[str, set[str]] = {}
        self._room = {code: MAX_NAMES - len(templates) for code, templates in kept.items()}
        self.name = lru_cache(maxsize=CACHED_PATHS)(self._find)

    def _find(self, product: str, method: str, route: str, path: str) -> str:
        matcher = self._matchers.get(product)
        if matcher and (name := matcher.find(method, path)) is not None:
            return name
        # a rollup's key is PostgreSQL text, which cannot hold a zero character
        name = route[:MAX_NAME_LENGTH].replace("\0", "") or OTHER_ENDPOINT
        known = self._routes.setdefault(product, set())
        if name in known:
            return name
        if len(known) >= self._room.get(product, MAX_NAMES):
            return OTHER_ENDPOINT
        known.add(name)
        return name
