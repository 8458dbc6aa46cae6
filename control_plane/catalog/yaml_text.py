"""YAML as people write it, without its traps: exact decimals, no duplicate keys, no aliases."""

from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from control_plane.foundation.errors import ValidationFailedError

MAX_LENGTH = 1_000_000


class _Loader(yaml.SafeLoader):
    """Plain values only."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            # a few nested aliases can stand for gigabytes
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)


def load_yaml(text: str) -> Any:
    """Return the document's value; numbers with a point are `Decimal` made of the very characters written.

    Raises:
        ValidationFailedError: field `line N`: not YAML, a key twice in one mapping, an alias, or too long.
    """
    if len(text) > MAX_LENGTH:
        raise ValidationFailedError("", f"the file must have at most {MAX_LENGTH} characters")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with fewer features
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        field = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValidationFailedError(field, error.problem or "is not YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        # ValueError: a date that is not in the calendar, a number of more digits than Python reads
        raise ValidationFailedError("", "is not YAML that can be read") from error


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> Decimal:
    try:
        number = Decimal(loader.construct_scalar(node).replace("_", ""))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise yaml.constructor.ConstructorError(
            problem=f"{node.value} is not a decimal number", problem_mark=node.start_mark
        )
    return number


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value in seen:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {getattr(key, 'value', 'here')} is there twice, or is no plain text",
                problem_mark=key.start_mark,
            )
        seen.add(key.value)
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor("tag:yaml.org,2002:float", _decimal)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
