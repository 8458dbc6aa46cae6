"""Taking parameters over into objects, the way Stripe does it."""

from collections.abc import Iterable
from typing import Any

from devstack.stripe.state import Object


def set_given(target: Object, params: dict[str, Any], names: Iterable[str]) -> None:
    """Copy the parameters that were given; `""` clears (None)."""
    for name in names:
        if name in params:
            target[name] = None if params[name] == "" else params[name]


def merge_metadata(target: Object, params: dict[str, Any]) -> None:
    """Key by key; a key given as `""` goes, `metadata=""` empties all."""
    if "metadata" in params:
        target["metadata"] = merged(target.get("metadata") or {}, params["metadata"])


def merged(old: dict[str, str], given: dict[str, str] | str) -> dict[str, str]:
    if not isinstance(given, dict):
        return {}
    together = {**old, **given}
    return {name: value for name, value in together.items() if value != ""}


def without_empty(params: dict[str, Any]) -> dict[str, Any]:
    """A copy in which what was given as `""` is None, at the top only."""
    return {name: None if value == "" else value for name, value in params.items()}
