"""Kong's schema language, as far as our entities and plugins use it.

A schema's `fields` is a list of one-entry maps, `[{"port": {"type": "integer", "between": [0, 65535]}}]`.
A rule that is not known here makes the schema itself invalid: nothing is left unchecked in silence.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from devstack.gateway.lua_patterns import compile_lua_pattern

Fields = Sequence[Mapping[str, Mapping[str, Any]]]
Errors = dict[str, Any]

REQUIRED = "required field missing"
UNKNOWN = "unknown field"


class SchemaError(Exception):
    """A plugin's schema uses a rule or a type that this gateway does not know."""


def process_record(fields: Fields, value: Mapping[str, Any]) -> tuple[dict[str, Any], Errors]:
    """Return the complete value (defaults filled, None where unset) and the errors, nested as the data is."""
    out: dict[str, Any] = {}
    errors: Errors = {}
    known = field_rules(fields)
    for name, rules in known.items():
        given = value.get(name)
        complete, error = process_value(rules, given)
        out[name] = complete
        if error is not None:
            errors[name] = error
    for name in value:
        if name not in known:
            errors[str(name)] = UNKNOWN
    return out, errors


def field_rules(fields: Fields) -> dict[str, Mapping[str, Any]]:
    return {name: rules for entry in fields for name, rules in entry.items()}


def process_value(rules: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    """Return the complete value and None, or the value and its error: a sentence, or a map of them."""
    check_rules(rules)
    if value is None and "default" in rules:
        value = rules["default"]
    if value is None and rules["type"] == "record" and rules.get("required"):
        value = {}
    if value is None:
        return None, REQUIRED if rules.get("required") else None
    complete, error = _TYPES[rules["type"]](rules, value)
    if error is None:
        error = _broken_rule(rules, complete)
    return complete, error


def check_rules(rules: Mapping[str, Any]) -> None:
    """Raises SchemaError when a field's rules hold anything this module would not check."""
    if rules.get("type") not in _TYPES:
        raise SchemaError(f"type {rules.get('type')!r} is not supported by the local gateway")
    for name in rules:
        if name not in _STRUCTURE and name not in _RULES and name not in _WITHOUT_EFFECT:
            raise SchemaError(f"rule {name!r} is not supported by the local gateway")


def _string(_: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    if not isinstance(value, str):
        return value, "expected a string"
    return value, "length must be at least 1" if value == "" else None


def _string_with_length(rules: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    complete, error = _string(rules, value)
    # Kong refuses the empty string unless the schema speaks of lengths itself
    return complete, None if value == "" and rules.get("len_min") == 0 else error


def _number(_: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return value, None if good else "expected a number"


def _integer(_: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    good = isinstance(value, int) and not isinstance(value, bool)
    return value, None if good else "expected an integer"


def _boolean(_: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    return value, None if isinstance(value, bool) else "expected a boolean"


def _array(rules: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list):
        return value, f"expected {'a set' if rules['type'] == 'set' else 'an array'}"
    results = [process_value(rules["elements"], item) for item in value]
    errors = [error for _, error in results]
    complete = [item for item, _ in results]
    if rules["type"] == "set":
        complete = [item for index, item in enumerate(complete) if item not in complete[:index]]
    return complete, errors if any(error is not None for error in errors) else None


def _map(rules: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    if not isinstance(value, dict):
        return value, "expected a map"
    out, errors = {}, dict[str, Any]()
    for key, item in value.items():
        _, key_error = process_value(rules.get("keys", {"type": "string"}), key)
        complete, error = process_value(rules.get("values", {"type": "string"}), item)
        out[key] = complete
        if key_error is not None or error is not None:
            errors[str(key)] = key_error if key_error is not None else error
    return out, errors or None


def _record(rules: Mapping[str, Any], value: Any) -> tuple[Any, Any]:
    if not isinstance(value, dict):
        return value, "expected a record"
    complete, errors = process_record(rules["fields"], value)
    return complete, errors or None


_TYPES: dict[str, Callable[[Mapping[str, Any], Any], tuple[Any, Any]]] = {
    "string": _string_with_length,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "array": _array,
    "set": _array,
    "map": _map,
    "record": _record,
}
_STRUCTURE = frozenset({"type", "required", "default", "elements", "keys", "values", "fields"})
_WITHOUT_EFFECT = frozenset({"description", "encrypted", "referenceable", "err", "abstract", "unique"})


def _is_uuid(value: Any) -> bool:
    try:
        return str(uuid.UUID(str(value))) == str(value).lower()
    except ValueError:
        return False


def _is_regex(value: Any) -> bool:
    try:
        re.compile(str(value))
    except re.error:
        return False
    return True


def _matches(value: Any, pattern: str) -> bool:
    return compile_lua_pattern(pattern).search(str(value)) is not None


_RULES: dict[str, tuple[Callable[[Any, Any], bool], Callable[[Any], str]]] = {
    "eq": (lambda value, rule: value == rule, lambda rule: f"value must be {rule}"),
    "ne": (lambda value, rule: value != rule, lambda rule: f"value must not be {rule}"),
    "gt": (lambda value, rule: value > rule, lambda rule: f"value must be greater than {rule}"),
    "between": (
        lambda value, rule: rule[0] <= value <= rule[1],
        lambda rule: f"value should be between {rule[0]} and {rule[1]}",
    ),
    "len_eq": (lambda value, rule: len(value) == rule, lambda rule: f"length must be {rule}"),
    "len_min": (lambda value, rule: len(value) >= rule, lambda rule: f"length must be at least {rule}"),
    "len_max": (lambda value, rule: len(value) <= rule, lambda rule: f"length must be at most {rule}"),
    "match": (_matches, lambda rule: f"invalid value: must match the pattern {rule}"),
    "not_match": (
        lambda value, rule: not _matches(value, rule),
        lambda rule: f"invalid value: must not match the pattern {rule}",
    ),
    "match_all": (
        lambda value, rule: all(_matches(value, one["pattern"]) for one in rule),
        lambda rule: "invalid value: " + "; ".join(one.get("err", one["pattern"]) for one in rule),
    ),
    "match_none": (
        lambda value, rule: not any(_matches(value, one["pattern"]) for one in rule),
        lambda rule: "invalid value: " + "; ".join(one.get("err", one["pattern"]) for one in rule),
    ),
    "starts_with": (
        lambda value, rule: str(value).startswith(rule),
        lambda rule: f"should start with: {rule}",
    ),
    "contains": (lambda value, rule: rule in value, lambda rule: f"expected to contain: {rule}"),
    "one_of": (
        lambda value, rule: value in rule,
        lambda rule: "expected one of: " + ", ".join(str(one) for one in rule),
    ),
    "not_one_of": (
        lambda value, rule: value not in rule,
        lambda rule: "must not be one of: " + ", ".join(str(one) for one in rule),
    ),
    "uuid": (lambda value, rule: not rule or _is_uuid(value), lambda _: "expected a valid UUID"),
    "is_regex": (lambda value, rule: not rule or _is_regex(value), lambda _: "not a valid regex"),
}


def _broken_rule(rules: Mapping[str, Any], value: Any) -> str | None:
    for name, (holds, sentence) in _RULES.items():
        if name in rules and not holds(value, rules[name]):
            return str(rules["err"]) if "err" in rules else sentence(rules[name])
    return None
