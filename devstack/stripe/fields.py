"""Taking parameters over into objects, the way Stripe does it."""

from collections.abc import Iterable
from typing import Any

from devstack.stripe.problems import StripeProblem
from devstack.stripe.state import Object

MOST_KEYS = 50
LONGEST_KEY = 40
LONGEST_VALUE = 500


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
    """Raises StripeProblem for more or longer metadata than Stripe keeps."""
    if not isinstance(given, dict):
        return {}
    together = {name: value for name, value in {**old, **given}.items() if value != ""}
    if len(together) > MOST_KEYS:
        raise StripeProblem(f"You can have up to {MOST_KEYS} metadata keys.", param="metadata")
    for name, value in together.items():
        if len(name) > LONGEST_KEY or "[" in name or "]" in name:
            raise StripeProblem(f"Metadata keys have at most {LONGEST_KEY} characters and no brackets: {name}")
        if len(value) > LONGEST_VALUE:
            raise StripeProblem(
                f"Metadata values have at most {LONGEST_VALUE} characters: {name}", param="metadata"
            )
    return together


def without_empty(params: dict[str, Any]) -> dict[str, Any]:
    """A copy in which what was given as `""` is None, at the top only."""
    return {name: None if value == "" else value for name, value in params.items()}
