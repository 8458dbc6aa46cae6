"""Endpoints of an OpenAPI document: how calls are told apart in usage figures."""

from collections.abc import Mapping
from typing import Any

from control_plane.catalog.model import MAX_ENDPOINTS, Endpoint
from control_plane.catalog.rules import METHODS
from control_plane.catalog.yaml_text import load_yaml
from control_plane.foundation.errors import ValidationFailedError


def read_endpoints(text: str, *, field: str = "openapi") -> tuple[Endpoint, ...]:
    """Return the operations of an OpenAPI 3 document (JSON or YAML) in its order, at most 500.

    Calls to operations beyond the 500th are counted as `other`, like calls to paths that are not in the document.

    Raises:
        ValidationFailedError: not an OpenAPI document with paths.
    """
    document = load_yaml(text)
    paths = document.get("paths") if isinstance(document, Mapping) else None
    if not isinstance(paths, Mapping) or "openapi" not in document:
        raise ValidationFailedError(field, "must be an OpenAPI 3 document with `openapi` and `paths`")
    found = [
        Endpoint(method=method.upper(), path_template=path)
        for path, operations in paths.items()
        for method in _methods(operations)
    ]
    return tuple(found[:MAX_ENDPOINTS])


def _methods(operations: Any) -> list[str]:
    return [name for name in operations if name.upper() in METHODS] if isinstance(operations, Mapping) else []
