"""What a value may be, as read from the SDK's types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Shape:
    """One of the classes below."""


@dataclass(frozen=True)
class Anything(Shape):
    pass


@dataclass(frozen=True)
class Null(Shape):
    pass


@dataclass(frozen=True)
class Text(Shape):
    pass


@dataclass(frozen=True)
class Whole(Shape):
    pass


@dataclass(frozen=True)
class Floating(Shape):
    pass


@dataclass(frozen=True)
class Truth(Shape):
    pass


@dataclass(frozen=True)
class Exact(Shape):
    """A decimal number, sent as a string."""


@dataclass(frozen=True)
class Choice(Shape):
    """One of these values, and no other: Stripe's enums are closed, whatever the SDK's types say."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Items(Shape):
    of: Shape


@dataclass(frozen=True)
class Values(Shape):
    """A map from any key."""

    of: Shape


@dataclass(frozen=True)
class Either(Shape):
    options: tuple[Shape, ...]


@dataclass(frozen=True)
class Named(Shape):
    """A class by its module and its dotted name in it, read when it is needed."""

    module: str
    name: str


@dataclass(frozen=True)
class Field:
    shape: Shape
    required: bool


@dataclass(frozen=True)
class Fields(Shape):
    """A closed object."""

    name: str
    fields: Mapping[str, Field]


def either(options: list[Shape]) -> Shape:
    """Of nested and repeated options one flat union; an open enum is closed."""
    flat: list[Shape] = []
    for one in options:
        for part in one.options if isinstance(one, Either) else (one,):
            if part not in flat:
                flat.append(part)
    if any(isinstance(one, Choice) and set(one.values) != {""} for one in flat):
        # the SDK adds `str` to every enum so that new values do not break type checks
        flat = [one for one in flat if not isinstance(one, Text)]
    return flat[0] if len(flat) == 1 else Either(tuple(flat))
