"""Objects as they leave the simulator: copies, without private fields, expanded as asked."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from devstack.stripe.problems import StripeProblem
from devstack.stripe.state import Object, State

Reveal = Callable[[State, Object], Any]
HIDDEN: dict[tuple[str, str], Reveal | None] = {}
KINDS_OF_FIELDS: dict[str, str] = {}
DEEPEST_EXPANSION = 4
PLAIN = frozenset({str, int, bool, float})


def shown_when_expanded(kind: str, name: str, reveal: Reveal | None = None) -> None:
    """Leave this field out of answers that do not expand it. `reveal` makes its value where none is kept."""
    HIDDEN[kind, name] = reveal


def field_holds(name: str, kind: str) -> None:
    """Ids in fields of this name are of this kind (said where the name itself does not)."""
    KINDS_OF_FIELDS[name] = kind


def render(state: State, one: Any, expand: Iterable[str] = ()) -> Any:
    """A deep copy to send. Raises StripeProblem for a path that cannot be expanded."""
    paths = [path.split(".") for path in expand]
    for path in paths:
        if len(path) > DEEPEST_EXPANSION + (path[0] == "data"):
            raise StripeProblem("You cannot expand more than 4 levels of a property.", param="expand")
    return _copy(state, one, paths)


def _copy(state: State, one: Any, paths: list[list[str]]) -> Any:
    if one is None or type(one) in PLAIN:
        return one
    if isinstance(one, list | tuple):
        return [_copy(state, item, paths) for item in one]
    if isinstance(one, Decimal):
        return plain(one)
    return _copy_object(state, one, paths) if isinstance(one, dict) else one


def _copy_object(state: State, one: Object, paths: list[list[str]]) -> Object:
    kind = one["object"] if isinstance(one.get("object"), str) else None
    shown: Object = {}
    wanted: dict[str, list[list[str]]] = {}
    for path in paths:
        wanted.setdefault(path[0], []).append(path[1:])
    for name, value in one.items():
        if name.startswith("_") or ((kind, name) in HIDDEN and name not in wanted):
            continue
        below = [path for path in wanted.get(name, ()) if path]
        shown[name] = _copy(state, value, below) if name not in wanted else _expanded(state, name, value, below)
    for name, deeper in wanted.items():
        reveal = HIDDEN.get((kind or "", name))
        if name not in shown and reveal is not None:
            shown[name] = _copy(state, reveal(state, one), [path for path in deeper if path])
        elif name not in one and kind is not None:
            raise StripeProblem(
                f"This property cannot be expanded ({name}). You may want to try expanding 'data.{name}' instead.",
                param="expand",
            )
    return shown


def _expanded(state: State, name: str, value: Any, below: list[list[str]]) -> Any:
    if isinstance(value, str):
        found = state.lookup(value, KINDS_OF_FIELDS.get(name, name))
        if found is None:
            raise StripeProblem(f"This property cannot be expanded ({name}).", param="expand")
        return _copy(state, found, below)
    if isinstance(value, list):
        return [_expanded(state, name, item, below) for item in value]
    return _copy(state, value, below)


def plain_values(value: Any) -> Any:
    """A deep copy with all fields, private ones too, that JSON can hold."""
    if isinstance(value, dict):
        return {str(name): plain_values(below) for name, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(below) for below in value]
    if isinstance(value, Decimal):
        return plain(value)
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def plain(number: Decimal) -> str:
    """Without an exponent or trailing zeros: Stripe's decimals are strings."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
