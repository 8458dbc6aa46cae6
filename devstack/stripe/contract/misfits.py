"""Does a value that leaves the simulator have the shape the SDK reads it with?"""

import re
from typing import Any

from devstack.stripe.contract.annotations import fields_of
from devstack.stripe.contract.shapes import (
    Anything,
    Choice,
    Either,
    Exact,
    Fields,
    Floating,
    Items,
    Named,
    Null,
    Shape,
    Text,
    Truth,
    Values,
    Whole,
)

NULL = Null()
DECIMAL = re.compile(r"-?\d+(\.\d+)?")


def misfit(shape: Shape, value: Any, where: str = "") -> str:  # noqa: PLR0911 - a table of cases
    """The first thing that does not fit, with its place; empty when all fits."""
    match shape:
        case Anything():
            return ""
        case Named():
            return _object(fields_of(shape), value, where)
        case Fields():
            return _object(shape, value, where)
        case Items(of):
            return _list(of, value, where)
        case Values(of):
            return _map(of, value, where)
        case Either(options):
            return _either(options, value, where)
        case _:
            return "" if _fits(shape, value) else f"{where or 'the answer'}: {value!r} is not {_wanted(shape)}"


def _object(shape: Fields, value: Any, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where or 'the answer'}: {value!r} is not an object ({shape.name})"
    if extra := sorted(value.keys() - shape.fields.keys()):
        return f"{where or 'the answer'}: {shape.name} has no {', '.join(extra)}"
    for name, field in shape.fields.items():
        if name not in value:
            if field.required:
                return f"{where or 'the answer'}: {shape.name} needs {name}"
        elif problem := misfit(field.shape, value[name], f"{where}.{name}" if where else name):
            return problem
    return ""


def _list(of: Shape, value: Any, where: str) -> str:
    if not isinstance(value, list):
        return f"{where}: {value!r} is not a list"
    return next((found for place, one in enumerate(value) if (found := misfit(of, one, f"{where}[{place}]"))), "")


def _map(of: Shape, value: Any, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where}: {value!r} is not a map"
    return next((found for name, one in value.items() if (found := misfit(of, one, f"{where}.{name}"))), "")


def _either(options: tuple[Shape, ...], value: Any, where: str) -> str:
    if value is None and NULL in options:
        return ""
    problems: list[str] = []
    for one in options:
        problem = misfit(one, value, where)
        if not problem:
            return ""
        problems.append(problem)
    # of an object say what is wrong inside it, not that it is not null
    if isinstance(value, dict):
        named = value.get("object")
        deeper = [
            problem
            for one, problem in zip(options, problems, strict=True)
            if isinstance(one, Named | Fields | Values) and not _is_other_resource(one, named)
        ]
        return deeper[0] if deeper else problems[0]
    return f"{where or 'the answer'}: {value!r} is not {' or '.join(_wanted(one) for one in options)}"


def _is_other_resource(shape: Shape, named: Any) -> bool:
    if not isinstance(shape, Named) or named is None:
        return False
    own = fields_of(shape).fields.get("object")
    return own is not None and isinstance(own.shape, Choice) and named not in own.shape.values


def _fits(shape: Shape, value: Any) -> bool:  # noqa: PLR0911 - a table of cases
    match shape:
        case Null():
            return value is None
        case Text():
            return isinstance(value, str)
        case Whole():
            return isinstance(value, int) and not isinstance(value, bool)
        case Floating():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Truth():
            return isinstance(value, bool)
        case Exact():
            return isinstance(value, str) and DECIMAL.fullmatch(value) is not None
        case Choice(values):
            return any(value == one and type(value) is type(one) for one in values)
        case _:
            return False


def _wanted(shape: Shape) -> str:
    match shape:
        case Choice(values):
            return "one of " + ", ".join(map(str, values))
        case Named(name=name):
            return name
        case _:
            return type(shape).__name__.lower()
