"""Checked fields of services and routes made into entities, with ids as Kong would give them."""

import json
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from devstack.gateway.entities import WORKSPACE_ID, Route, Service
from devstack.gateway.problems import Path

# Kong makes the ids of entities that give none from their names in this way, so ours are the same as Kong's
_ENTITIES = uuid.UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")


def generated_id(kind: str, key: str) -> str:
    return str(uuid.uuid5(uuid.uuid5(_ENTITIES, kind), key))


def dates(complete: Mapping[str, Any], *, now: int) -> dict[str, int]:
    """`now` in seconds since 1970."""
    return {"created_at": complete["created_at"] or now, "updated_at": complete["updated_at"] or now}


def split_url(url: str) -> dict[str, Any]:
    """A service's `url` as protocol, host, port and path. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError("expected http://host[:port][/path]")
    out: dict[str, Any] = {"protocol": parts.scheme, "host": parts.hostname, "port": parts.port or 80}
    return out | ({"path": parts.path} if parts.path else {})


def make_service(complete: dict[str, Any], *, now: int) -> Service:
    identifier = complete["id"] or generated_id("services", complete["name"])
    fields = {name: value for name, value in complete.items() if value is not None}
    fields |= {"id": identifier, "ws_id": WORKSPACE_ID, **dates(complete, now=now)}
    return Service(
        id=identifier,
        name=complete["name"],
        host=complete["host"],
        port=complete["port"],
        path=complete["path"] or "/",
        connect_timeout_ms=complete["connect_timeout"],
        write_timeout_ms=complete["write_timeout"],
        read_timeout_ms=complete["read_timeout"],
        retries=complete["retries"],
        enabled=complete["enabled"],
        fields=fields,
    )


def make_route(complete: dict[str, Any], service: Service, path: Path, *, now: int) -> Route:
    # a nameless route has no stable name in Kong either; its place and content give it one here
    name = complete["name"] or json.dumps([path, complete], default=str)
    identifier = complete["id"] or generated_id("routes", name)
    fields = {field: value for field, value in complete.items() if value is not None}
    fields |= {"id": identifier, "service": {"id": service.id}, "ws_id": WORKSPACE_ID, **dates(complete, now=now)}
    return Route(
        id=identifier,
        name=complete["name"],
        service=service,
        paths=tuple(complete["paths"] or ()),
        hosts=tuple(complete["hosts"] or ()),
        methods=tuple(complete["methods"] or ()),
        protocols=tuple(complete["protocols"]),
        regex_priority=complete["regex_priority"],
        strip_path=complete["strip_path"],
        preserve_host=complete["preserve_host"],
        https_redirect_status_code=complete["https_redirect_status_code"],
        fields=fields,
    )
