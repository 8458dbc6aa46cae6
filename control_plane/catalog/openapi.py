"""Endpoints of an OpenAPI document: how calls are told apart in usage figures."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from control_plane.catalog.model import MAX_ENDPOINTS, Endpoint
from control_plane.catalog.rules import METHODS
from control_plane.catalog.yaml_text import load_yaml
from control_plane.foundation.errors import ValidationFailedError


def read_endpoints(text: str, *, field: str = "openapi") -> tuple[Endpoint, ...]:
    """Return the operations of an OpenAPI 3 document (JSON or YAML) in its order, at most 500.

    Paths are as callers send them: the path of the first server (`https://api.example.com/weather`) stands before.
    Calls to operations beyond the 500th are counted as `other`, like calls to paths that are not in the document.

    Raises:
        ValidationFailedError: not an OpenAPI document with paths.
    """
    document = load_yaml(text)
    paths = document.get("paths") if isinstance(document, Mapping) else None
    if not isinstance(paths, Mapping) or "openapi" not in document:
        raise ValidationFailedError(field, "must be an OpenAPI 3 document with `openapi` and `paths`")
    prefix = _server_path(document.get("servers"))
    found = [
        Endpoint(method=method.upper(), path_template=prefix + path)
        for path, operations in paths.items()
        for method in _methods(operations)
    ]
    return tuple(found[:MAX_ENDPOINTS])


def _server_path(servers: Any) -> str:
    first = servers[0] if isinstance(servers, list) and servers else None
    url = first.get("url") if isinstance(first, Mapping) else None
    return urlsplit(url).path.rstrip("/") if isinstance(url, str) else ""


def _methods(operations: Any) -> list[str]:
    return [name for name in operations if name.upper() in METHODS] if isinstance(operations, Mapping) else []
