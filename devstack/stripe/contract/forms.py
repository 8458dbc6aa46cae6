"""Form bodies as Stripe codes them: `a[b][0][c]=value`."""

import re
from typing import Any
from urllib.parse import parse_qsl

from devstack.stripe.problems import StripeProblem

NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
PART = re.compile(r"\[([^\[\]]*)\]")


def parse_form(text: str) -> dict[str, Any]:
    """Nested dicts and lists of strings; a dict whose keys count from 0 is a list. Raises StripeProblem."""
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        found = NAME.fullmatch(name)
        if found is None:
            raise StripeProblem(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        _put(tree, [found[1], *PART.findall(found[2])], value, name)
    return {key: _lists(value) for key, value in tree.items()}


def _put(tree: dict[str, Any], path: list[str], value: str, name: str) -> None:
    for part in path[:-1]:
        below = tree.setdefault(_key(tree, part), {})
        if not isinstance(below, dict):
            raise StripeProblem(f"Invalid parameter: {name} is given twice in different forms.", param=name)
        tree = below
    tree[_key(tree, path[-1])] = value


def _key(tree: dict[str, Any], part: str) -> str:
    # `a[]=x` appends
    return part or str(len(tree))


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(below) for key, below in value.items()}
