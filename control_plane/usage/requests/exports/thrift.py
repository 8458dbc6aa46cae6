"""Thrift's compact protocol, as far as the footers of Parquet files use it: reads structs and writes them back.

A struct is a dict of (type, value) by field id, in order; a list is (element type, values). The forms are those of
the public specification, `thrift-compact-protocol.md` of Apache Thrift.
"""

from typing import Any, NamedTuple

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_LONG_FORM = 15
_DOUBLE_BYTES = 8

Struct = dict[int, "Field"]


class Field(NamedTuple):
    """One field of a struct."""

    kind: int
    value: Any


class Items(NamedTuple):
    """A list; a bool in it is a byte."""

    kind: int
    values: list[Any]


class ThriftError(ValueError):
    """The bytes are no struct that this module reads."""


def read_struct(data: bytes) -> Struct:
    """Return the struct that `data` begins with.

    Raises:
        ThriftError: there is none, or it holds a map or a set.
    """
    try:
        return _Reader(data).struct()
    except IndexError as error:
        raise ThriftError("the struct is cut off") from error


def write_struct(struct: Struct) -> bytes:
    """Return a struct's bytes."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, delta = head & 0x0F, head >> 4
            number = number + delta if delta else _signed(self._varint())
            value = kind == TRUE if kind in {TRUE, FALSE} else self._value(kind)
            fields[number] = Field(kind, value)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in {I16, I32, I64}:
            return _signed(self._varint())
        if kind == BINARY:
            return self._take(self._varint())
        if kind == STRUCT:
            return self.struct()
        if kind == LIST:
            return self._list()
        if kind in {BYTE, TRUE, FALSE}:
            return self._byte()
        if kind == DOUBLE:
            return self._take(_DOUBLE_BYTES)
        raise ThriftError(f"type {kind} is not read here")

    def _list(self) -> Items:
        head = self._byte()
        size = head >> 4
        if size == _LONG_FORM:
            size = self._varint()
        kind = head & 0x0F
        return Items(kind, [self._value(kind) for _ in range(size)])

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ThriftError("the struct is cut off")
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
                return value


def _signed(zigzag: int) -> int:
    return (zigzag >> 1) ^ -(zigzag & 1)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _write_struct(out: bytearray, struct: Struct) -> None:
    before = 0
    for number, field in struct.items():
        kind = (TRUE if field.value else FALSE) if field.kind in {TRUE, FALSE} else field.kind
        if 0 < number - before < 16:  # noqa: PLR2004 - four bits
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_varint(out, _zigzag(number))
        before = number
        if kind not in {TRUE, FALSE}:
            _write_value(out, kind, field.value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in {I16, I32, I64}:
        _write_varint(out, _zigzag(value))
    elif kind == BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == STRUCT:
        _write_struct(out, value)
    elif kind == LIST:
        size = len(value.values)
        out.append(min(size, _LONG_FORM) << 4 | value.kind)
        if size >= _LONG_FORM:
            _write_varint(out, size)
        for item in value.values:
            _write_value(out, value.kind, item)
    elif kind == DOUBLE:
        out += value
    else:
        out.append(value)


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:  # noqa: PLR2004 - seven bits at a time
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
