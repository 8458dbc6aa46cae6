"""Everything the gateway knows about one request while it is handled, and the log Kong makes of it."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from devstack.gateway.entities import WORKSPACE_ID
from devstack.gateway.headers import Headers, TableValue
from devstack.gateway.http_answer import Request
from devstack.gateway.router import Match
from devstack.gateway.upstreams import Upstream
from devstack.gateway.uris import normalize, readable

MAX_QUERY_ARGUMENTS = 100
_REDACTED_HEADERS = ("authorization", "proxy-authorization")


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass
class UpstreamCall:
    """Where the request goes, as plugins may change it, and how it went.

    `host` may be an upstream's name: `balanced` is that upstream, once the access phase is over.
    """

    host: str
    port: int
    path: str
    query: str | None
    method: str
    host_header: str | None = None
    body: bytes | None = None
    statuses: list[str] = field(default_factory=list)
    tries: list[dict[str, Any]] = field(default_factory=list)
    balanced: Upstream | None = None


@dataclass
class Exit:
    """The answer a plugin (or the gateway itself) gives instead of the upstream."""

    status: int
    body: bytes
    headers: dict[str, TableValue]


class Exchange:
    """One request on its way through. Times are ms since 1970; latencies are None until known."""

    def __init__(self, request: Request, upstreams: Mapping[str, Upstream] | None = None) -> None:
        """`upstreams` are those of the configuration under which it began."""
        self.request = request
        self.upstreams = upstreams or {}
        self.id = secrets.token_hex(16)
        self.nginx_id = secrets.token_hex(16)
        self.started_at_ms = int(request.received_at * 1000)
        self.headers = request.headers
        path, question_mark, query = request.target.partition("?")
        self.raw_path = path
        self.query: str | None = query if question_mark else None
        self.match: Match | None = None
        self.upstream: UpstreamCall | None = None
        self.consumer: dict[str, Any] | None = None
        self.credential: dict[str, Any] | None = None
        self.shared: dict[str, Any] = {}
        self.nginx_context: dict[str, Any] = {}
        self.serialize_values: list[tuple[str, Any]] = []
        self.early_headers = Headers()
        self.exit: Exit | None = None
        self.proxied = False
        self.unexpected = False
        self.status = 0
        self.response_headers = Headers()
        self.response_bytes = 0
        self.kong_latency_ms: int | None = None
        self.waiting_ms: int | None = None
        self.receive_ms = 0

    @property
    def path(self) -> str:
        """As `kong.request.get_path` gives it: normalized."""
        return readable(normalize(self.raw_path))

    @property
    def host(self) -> str:
        """The Host header without its port, in lower case."""
        return (self.headers.get("host") or "").rpartition("@")[2].partition(":")[0].lower()

    @property
    def source(self) -> str:
        """Who answers: `error`, `exit` or `service`."""
        if self.unexpected:
            return "error"
        if self.exit is not None:
            return "exit"
        return "service" if self.proxied else "error"

    def since_start_ms(self) -> int:
        return max(0, now_ms() - self.started_at_ms)

    def query_table(self, max_arguments: int = MAX_QUERY_ARGUMENTS) -> dict[str, Any]:
        """Arguments by name; a repeated one is a list, one without `=` is True."""
        out: dict[str, Any] = {}
        for part in [part for part in (self.query or "").split("&") if part][:max_arguments]:
            name, equals, value = part.partition("=")
            key = unquote_plus(readable(name))
            item: Any = unquote_plus(readable(value)) if equals else True
            if key in out:
                seen = out[key]
                out[key] = [*seen, item] if isinstance(seen, list) else [seen, item]
            else:
                out[key] = item
        return out

    def serialize(self) -> dict[str, Any]:
        """As `kong.log.serialize` in the log phase, changed by what `set_serialize_value` asked for."""
        root = self._root()
        for key, value in self.serialize_values:
            _set_dotted(root, key, value)
        return root

    def _root(self) -> dict[str, Any]:
        request_headers = self.headers.table()
        for name in _REDACTED_HEADERS:
            if name in request_headers:
                request_headers[name] = "REDACTED"
        uri = readable(self.request.target)
        root: dict[str, Any] = {
            "request": {
                "id": self.id,
                "uri": uri,
                "url": f"http://{self.host}:{self.request.server_port}{uri}",
                "querystring": self.query_table(),
                "method": self.request.method,
                "headers": request_headers,
                "size": self.request.request_bytes,
            },
            "upstream_uri": self._upstream_uri(),
            "upstream_status": ", ".join(self.upstream.statuses) if self.upstream else "",
            "response": {
                "status": self.status,
                "headers": self.response_headers.table(),
                "size": self.response_bytes,
            },
            "latencies": {
                "kong": self.kong_latency_ms or 0,
                "proxy": -1 if self.waiting_ms is None else self.waiting_ms,
                "request": self.since_start_ms(),
                "receive": self.receive_ms,
            },
            "client_ip": self.request.client_ip,
            "started_at": self.started_at_ms,
            "source": "upstream" if self.source == "service" else "kong",
            "workspace": WORKSPACE_ID,
            "workspace_name": "default",
        }
        return root | self._optional_parts()

    def _optional_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        if self.match is not None:
            parts["route"] = self.match.route.fields
            parts["service"] = self.match.route.service.fields
        if self.upstream is not None:
            parts["tries"] = self.upstream.tries
        if self.consumer is not None:
            parts["consumer"] = self.consumer
        if self.credential is not None:
            consumer_id = self.credential.get("consumer_id") or (self.consumer or {}).get("id")
            parts["authenticated_entity"] = {"id": self.credential["id"], "consumer_id": consumer_id}
        return parts

    def _upstream_uri(self) -> str:
        if self.upstream is None:
            return ""
        query = "" if self.upstream.query is None else f"?{self.upstream.query}"
        return readable(self.upstream.path + query)


def _set_dotted(root: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = root
    for name in parents:
        # the containers on the way are copied: they may belong to the configuration
        child = node.get(name, {})
        if not isinstance(child, dict):
            raise TypeError(f"the key {key!r} cannot be set: {name!r} is not a table")
        node[name] = dict(child)
        node = node[name]
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value


def to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
