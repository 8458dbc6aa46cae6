"""What the PDK needs of a connection, and the few shapes most methods share."""

from functools import lru_cache
from typing import Protocol, TypeAlias, cast

from kong_plugins.server import wire
from kong_plugins.server.errors import WireError
from kong_plugins.server.methods import METHODS, Method

DOUBLE_SIZE = 8

# By lower-case name; what came more than once is a list. A query argument without `=` is True.
Headers: TypeAlias = dict[str, str | list[str]]
Arguments: TypeAlias = dict[str, str | bool | list[str | bool]]


class Channel(Protocol):
    """One event's conversation with Kong."""

    def call(self, method: Method, argument: bytes) -> bytes:
        """Send one call and return the bytes of Kong's answer (none where Kong says nil).

        Raises ConnectionLostError where Kong has gone, PdkError where the event has ended.
        """
        ...

    def exit(self, argument: bytes) -> None:
        """Send the answer to the caller; raises ResponseSent, always."""
        ...


class Namespace:
    """A part of the PDK, `kong.request` say."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def _text(self, method: str, argument: bytes = b"") -> str:
        return wire.decode_string(self._channel.call(METHODS[method], argument))

    def _text_or_none(self, method: str, argument: bytes = b"") -> str | None:
        """Return a text, or None where Kong has none; Kong cannot say "there, but empty"."""
        reply = self._channel.call(METHODS[method], argument)
        return wire.decode_string(reply) if reply else None

    def _number(self, method: str) -> int:
        return decode_int(self._channel.call(METHODS[method], b""))

    def _headers(self, method: str, most: int) -> Headers:
        return cast("Headers", wire.decode_struct(self._channel.call(METHODS[method], encode_int(most))))

    def _do(self, method: str, argument: bytes) -> None:
        self._channel.call(METHODS[method], argument)


@lru_cache(maxsize=1024)
def encode_int(number: int) -> bytes:
    """Return an `Int` message; always with its value, since Kong would read an empty one as 0."""
    return b"\x08" + wire.encode_varint(number)


def decode_int(data: bytes) -> int:
    """Return an `Int` or `Bool` message's value; an empty one is 0."""
    number = 0
    for key, _kind, value in wire.iter_fields(data):
        if key == 1 and isinstance(value, int):
            number = value
    return number


def decode_number(data: bytes) -> float:
    """Return a `Number` message's value; an empty one is 0."""
    for key, _kind, value in wire.iter_fields(data):
        if key == 1 and isinstance(value, bytes) and len(value) == DOUBLE_SIZE:
            return wire.decode_double(value)
    return 0.0


def encode_pair(name: str, value: object) -> bytes:
    """Return a `KV` message."""
    if not isinstance(name, str):
        raise WireError("a name must be a string")
    return wire.encode_string(name) + wire.field(2, wire.encode_value(value))
