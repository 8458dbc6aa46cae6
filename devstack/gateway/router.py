"""Which route a request takes, by the rules of Kong's traditional router."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from devstack.gateway.entities import Route
from devstack.gateway.uris import bytewise, escape, normalize

_HOST, _URI, _METHOD = 0x40, 0x10, 0x08
_HAS_REGEX, _PLAIN_HOSTS_ONLY, _WILDCARD_WITH_PORT = 0x01, 0x02, 0x04


@dataclass(frozen=True)
class Match:
    """The route, the part of the path it matched (None when it has no paths) and the path for the upstream."""

    route: Route
    prefix: str | None
    upstream_path: str


def path_problem(path: str) -> str | None:
    """Why this cannot be a route's path, or None."""
    if path.startswith("~/"):
        try:
            re.compile(_python_regex(path[1:]))
        except re.error as error:
            return f"invalid regex: '{path[1:]}' ({error})"
        return None
    if not path.startswith("/"):
        return "should start with: / (fixed path) or ~/ (regex path)"
    if re.search(r"[^A-Za-z0-9\-._~/%!$&'()*+,;=:@]", path) and path.isascii():
        return "invalid path: contains characters outside of the reserved list of RFC 3986"
    return None


class Router:
    """Routes in the order in which they are tried."""

    def __init__(self, routes: Iterable[Route]) -> None:
        candidates = [candidate for order, route in enumerate(routes) for candidate in _candidates(route, order)]
        self._candidates = sorted(candidates, key=lambda candidate: candidate.order)

    def match(self, *, method: str, raw_path: str, host: str | None) -> Match | None:
        """`raw_path` is the path of the request line without its query, `host` the Host header."""
        path = normalize(raw_path)
        for candidate in self._candidates:
            prefix = candidate.match(method, path, host)
            if prefix != _NO:
                return _matched(candidate.route, path, prefix)
        return None


# a prefix never looks like this
_NO = "no match"


class _Candidate:
    """One route by one of its paths (or by none)."""

    def __init__(self, route: Route, path: str | None, order: int) -> None:
        self.route = route
        self._prefix = None if path is None or path.startswith("~") else bytewise(path)
        self._regex = re.compile(_python_regex(path[1:])) if path is not None and path[0] == "~" else None
        self._methods = frozenset(route.methods)
        self._plain_hosts = frozenset(host.lower() for host in route.hosts if "*" not in host)
        self._wildcards = [_wildcard(host.lower()) for host in route.hosts if "*" in host]
        rules = (_HOST if route.hosts else 0) | (_URI if route.paths else 0) | (_METHOD if route.methods else 0)
        submatch = _HAS_REGEX if any(one.startswith("~") for one in route.paths) else 0
        if route.hosts and not self._wildcards:
            submatch |= _PLAIN_HOSTS_ONLY
        if any("*" in host and ":" in host for host in route.hosts):
            submatch |= _WILDCARD_WITH_PORT
        # more rules first; then plain hosts before wildcards, regex before prefix, longer before shorter
        self.order = (
            -rules.bit_count(),
            -rules,
            -submatch,
            0 if self._regex else 1,
            -route.regex_priority if self._regex else 0,
            -len(self._prefix or ""),
            order,
        )

    def match(self, method: str, path: str, host: str | None) -> str | None:
        """The matched prefix, None where the route has no paths, `_NO` where it does not match."""
        if self._methods and method not in self._methods:
            return _NO
        if self.route.hosts and not self._host_matches((host or "").lower()):
            return _NO
        if self._regex is not None:
            found = self._regex.match(path)
            return found[0] if found else _NO
        if self._prefix is None:
            return None
        return self._prefix if path.startswith(self._prefix) else _NO

    def _host_matches(self, host: str) -> bool:
        without_port = re.sub(r":\d+$", "", host)
        if host in self._plain_hosts or without_port in self._plain_hosts:
            return True
        return any(wildcard.search(host) for wildcard in self._wildcards)


def _candidates(route: Route, order: int) -> list[_Candidate]:
    return [_Candidate(route, path, order) for path in route.paths or (None,)]


def _wildcard(host: str) -> re.Pattern[str]:
    has_port = re.search(r":\d+$", host) is not None
    expression = re.escape(host).replace(r"\*", ".+")
    return re.compile(expression + ("$" if has_port else r"(?::\d+)?$"))


def _python_regex(expression: str) -> str:
    # PCRE names groups (?<name>...), Python (?P<name>...)
    return re.sub(r"\(\?<(?![=!])", "(?P<", bytewise(expression))


def _matched(route: Route, path: str, prefix: str | None) -> Match:
    rest = path[1:] if prefix is None else _without_leading_dots(path[len(prefix) :])
    upstream_path = _upstream_path(route, rest, path, bytewise(route.service.path))
    return Match(route, prefix, escape(upstream_path))


def _without_leading_dots(rest: str) -> str:
    if rest in {".", ".."}:
        return ""
    return rest.removeprefix("./") if rest.startswith("./") else rest.removeprefix("../")


def _upstream_path(route: Route, rest: str, path: str, base: str) -> str:
    """Kong's path handling v0: the service's path and the (stripped) request path with one slash between."""
    if route.strip_path:
        if rest:
            return base.removesuffix("/") + "/" + rest.removeprefix("/")
        if base == "/":
            return "/"
        if base.endswith("/"):
            return base if path.endswith("/") else base[:-1]
        return base + "/" if len(path) > 1 and path.endswith("/") else base
    if base.endswith("/"):
        return base + path[1:]
    return base if path == "/" else base + path
