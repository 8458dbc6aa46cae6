"""The part of Kong's Admin API that the control plane uses: `/`, `/status`, `/config`."""

import json
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qs

from devstack.gateway.body import BodyBrokenError
from devstack.gateway.declarative import configuration_hash
from devstack.gateway.entities import Configuration
from devstack.gateway.exchange import to_json
from devstack.gateway.http_answer import Answer, Request
from devstack.gateway.pdk import NODE_ID
from devstack.gateway.problems import ConfigurationInvalidError

VERSION = "3.9.3"
TAGLINE = "Local gateway of kong-monetize: stands in for Kong in development and tests only"
MAX_BODY_BYTES = 10 * 1024 * 1024
# Kong's number for a declarative configuration that was refused
INVALID_CONFIGURATION_CODE = 14

Reply = tuple[int, Any]


class AdminTarget(Protocol):
    """What the Admin API shows and changes."""

    @property
    def configuration(self) -> Configuration:
        """The one in force."""

    def push(self, text: str) -> Configuration:
        """Load and apply; raises ConfigurationInvalidError and then changes nothing."""

    def description(self) -> dict[str, Any]:
        """Facts for `GET /`."""


class AdminApi:
    """Answers one request at a time from and to a target."""

    def __init__(self, target: AdminTarget) -> None:
        self._target = target
        self._routes: dict[tuple[str, str], Callable[[Request, str, bytes], Reply]] = {
            ("GET", "/"): self._show_node,
            ("GET", "/status"): self._show_status,
            ("GET", "/config"): self._show_configuration,
            ("POST", "/config"): self._push_configuration,
        }

    async def handle(self, request: Request, answer: Answer) -> None:
        path, _, query = request.target.partition("?")
        path = path.rstrip("/") or "/"
        try:
            body = await request.body.read_all()
        except BodyBrokenError:
            return
        status, content = self._reply(request, path, query, body)
        payload = b"" if content is None else to_json(content)
        headers = [(b"Content-Type", b"application/json; charset=utf-8"), (b"Server", f"kong/{VERSION}".encode())]
        answer.start(status, headers, content_length=len(payload))
        await answer.write(payload)
        await answer.finish(lambda _: None)

    def _reply(self, request: Request, path: str, query: str, body: bytes) -> Reply:
        if len(body) > MAX_BODY_BYTES:
            return 413, {"message": "Payload too large"}
        handler = self._routes.get((request.method, path))
        if handler is not None:
            return handler(request, query, body)
        if any(known == path for _, known in self._routes):
            return 405, {"message": "Method not allowed"}
        return 404, {"message": "Not found"}

    def _show_node(self, *_: Any) -> Reply:
        return 200, {
            "version": VERSION,
            "tagline": TAGLINE,
            "node_id": NODE_ID,
            "local_gateway": True,
            **self._target.description(),
        }

    def _show_status(self, *_: Any) -> Reply:
        return 200, {
            "configuration_hash": self._target.configuration.hash,
            "database": {"reachable": True},
            "server": {},
        }

    def _show_configuration(self, *_: Any) -> Reply:
        return 200, {"config": json.dumps(self._target.configuration.entities)}

    def _push_configuration(self, request: Request, query: str, body: bytes) -> Reply:
        try:
            text, fields = _pushed_text(request, body)
        except UnicodeDecodeError:
            return 400, {"message": "the body is not UTF-8"}
        if not text:
            return 400, {"message": "expected a declarative configuration"}
        checks_hash = (parse_qs(query).get("check_hash") or fields.get("check_hash") or ["0"])[0] == "1"
        hashable = fields.get("whole_body_is_json") is None
        if checks_hash and hashable and configuration_hash(text) == self._target.configuration.hash:
            return 304, None
        try:
            applied = self._target.push(text)
        except ConfigurationInvalidError as error:
            return 400, _refusal(error)
        return 201, applied.entities


def _pushed_text(request: Request, body: bytes) -> tuple[str, dict[str, list[str]]]:
    """The configuration's text, and what else a form said. In Kong a JSON body that *is* one has no hash."""
    kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    text = body.decode()
    if kind == "application/x-www-form-urlencoded":
        fields = parse_qs(text, keep_blank_values=True)
        return (fields.get("config") or [""])[0], fields
    if kind == "application/json":
        try:
            document = json.loads(text)
        except json.JSONDecodeError:
            return text, {}
        if isinstance(document, dict) and isinstance(document.get("config"), str):
            return document["config"], {}
        return text, {"whole_body_is_json": ["1"]}
    return text, {}


def _refusal(error: ConfigurationInvalidError) -> dict[str, Any]:
    return {
        "code": INVALID_CONFIGURATION_CODE,
        "name": "invalid declarative configuration",
        "message": str(error),
        "fields": error.fields,
    }
