"""Protocol buffer bytes for the messages on the hot path, by hand.

Why not the protobuf runtime: it refuses a `string` that is not UTF-8, and a header value is whatever bytes a
caller sent. Here such bytes survive both ways as surrogate escapes. It is no slower: decoding twelve headers
takes about 7 us either way.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from kong_plugins.server.errors import WireError
from kong_plugins.server.string_structs import decode_strings, encode_strings

# What a google.protobuf.Value can hold. Numbers come back as int where they are integral.
Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Field: TypeAlias = tuple[int, int, int | bytes]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_DOUBLE = struct.Struct("<d")
_LENGTH_PREFIX = struct.Struct("<I")
_EXACT_INTEGERS = 2.0**53
_ONE_BYTE = 0x80
_MAX_VARINT_SHIFT = 63
_MAX_DEPTH = 64

# field numbers of google.protobuf.Value, and of a map entry
_NUMBER, _STRING, _BOOL, _STRUCT, _LIST = 2, 3, 4, 5, 6
_KEY, _VALUE = 1, 2

frame_length = _LENGTH_PREFIX.unpack_from
pack_frame_length = _LENGTH_PREFIX.pack


def frame(payload: bytes) -> bytes:
    """Return the payload behind its length: uint32, little-endian."""
    return _LENGTH_PREFIX.pack(len(payload)) + payload


def encode_varint(number: int) -> bytes:
    """Return a varint; negative numbers as ten bytes, the way int32 and int64 fields carry them."""
    if 0 <= number < _ONE_BYTE:
        return bytes((number,))
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number >= _ONE_BYTE:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed 64-bit number at that offset and the offset behind it."""
    shift = number = 0
    try:
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < _ONE_BYTE:
                break
            shift += 7
            if shift > _MAX_VARINT_SHIFT:
                raise WireError("a varint is longer than ten bytes")
    except IndexError:
        raise WireError("a varint ends early") from None
    number &= 0xFFFF_FFFF_FFFF_FFFF
    return (number - (1 << 64) if number >> 63 else number), at


def field(number: int, payload: bytes) -> bytes:
    """Return one length-delimited field."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(len(payload)) + payload


def iter_fields(data: bytes) -> Iterator[Field]:
    """Yield (field number, wire type, value) of a message; fixed-width values come as their bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = decode_varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            number, at = decode_varint(data, at)
            yield tag >> 3, kind, number
            continue
        if kind == LENGTH:
            size, at = decode_varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"wire type {kind} is not used by this protocol")
        if size < 0 or at + size > end:
            raise WireError("a field is longer than its message")
        yield tag >> 3, kind, data[at : at + size]
        at += size


def text_bytes(text: str) -> bytes:
    """Return the bytes a string came from."""
    return text.encode("utf-8", "surrogateescape")


def bytes_text(data: bytes) -> str:
    """Return any bytes as a string; what is no UTF-8 becomes surrogate escapes, so nothing is lost."""
    return data.decode("utf-8", "surrogateescape")


def encode_double(number: float) -> bytes:
    return _DOUBLE.pack(number)


def decode_double(data: bytes) -> float:
    number: float = _DOUBLE.unpack(data)[0]
    return number


def encode_string(text: str) -> bytes:
    """Return a message whose field 1 is that string (`String`); an empty one is an empty message."""
    data = text.encode("utf-8", "surrogateescape")
    if not data:
        return b""
    size = len(data)
    return b"\n%c%b" % (size, data) if size < _ONE_BYTE else field(1, data)


def decode_string(data: bytes) -> str:
    """Return field 1 of a `String`; an empty message is an empty string."""
    if len(data) > 1 and data[0] == LENGTH | 1 << 3 and data[1] == len(data) - 2 < _ONE_BYTE:
        return data[2:].decode("utf-8", "surrogateescape")
    text = ""
    for number, kind, value in iter_fields(data):
        if number == 1 and kind == LENGTH and isinstance(value, bytes):
            text = bytes_text(value)
    return text


def encode_value(value: object, depth: int = 0) -> bytes:  # noqa: PLR0911 - one return for each kind of value
    """Return a google.protobuf.Value.

    None is an empty message: Kong turns the protocol's own null into the text "NULL_VALUE", an unset value
    into nil. Mappings and sequences may nest 64 deep.
    """
    if type(value) is str:
        data = value.encode("utf-8", "surrogateescape")
        size = len(data)
        return b"\x1a%c%b" % (size, data) if size < _ONE_BYTE else field(_STRING, data)
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x20\x01" if value else b"\x20\x00"
    if isinstance(value, int | float):
        return b"\x11" + _DOUBLE.pack(value)
    if isinstance(value, bytes | bytearray):
        return field(_STRING, bytes(value))
    if depth > _MAX_DEPTH:
        raise WireError("a value nests too deep")
    if isinstance(value, Mapping):
        return field(_STRUCT, encode_struct(value, depth + 1))
    if isinstance(value, str):
        return field(_STRING, text_bytes(value))
    if isinstance(value, Iterable):
        return field(_LIST, encode_list(value, depth + 1))
    raise WireError(f"Kong cannot be given a {type(value).__name__}")


def decode_value(data: bytes, depth: int = 0) -> Json:
    """Return what a google.protobuf.Value holds; an empty message is None."""
    if depth > _MAX_DEPTH:
        raise WireError("a value nests too deep")
    result: Json = None
    for number, _kind, value in iter_fields(data):
        if isinstance(value, int):
            result = bool(value) if number == _BOOL else None
        elif number == _STRING:
            result = bytes_text(value)
        elif number == _NUMBER and len(value) == _DOUBLE.size:
            result = _plain_number(decode_double(value))
        elif number == _STRUCT:
            result = decode_struct(value, depth + 1)
        elif number == _LIST:
            result = decode_list(value, depth + 1)
    return result


def encode_list(values: Iterable[object], depth: int = 0) -> bytes:
    """Return a google.protobuf.ListValue."""
    return b"".join([field(1, encode_value(value, depth)) for value in values])


def decode_list(data: bytes, depth: int = 0) -> list[Json]:
    return [
        decode_value(value, depth)
        for number, _kind, value in iter_fields(data)
        if number == 1 and isinstance(value, bytes)
    ]


def encode_struct(values: Mapping[str, object], depth: int = 0) -> bytes:
    """Return a google.protobuf.Struct; the shape headers are set with."""
    strings = encode_strings(values)
    if strings is not None:
        return strings
    entries = [
        field(_KEY, text_bytes(name)) + field(_VALUE, encode_value(value, depth)) for name, value in values.items()
    ]
    return b"".join([field(1, entry) for entry in entries])


def decode_struct(data: bytes, depth: int = 0) -> dict[str, Json]:
    """Return a google.protobuf.Struct as a dict; entries whose value is a string take a short way."""
    try:
        strings = decode_strings(data)
    except IndexError:
        strings = None
    return _decode_struct_slowly(data, depth) if strings is None else strings


def _decode_struct_slowly(data: bytes, depth: int) -> dict[str, Json]:
    out: dict[str, Json] = {}
    for number, _kind, entry in iter_fields(data):
        if number != 1 or not isinstance(entry, bytes):
            continue
        key, value = "", b""
        for part, _part_kind, content in iter_fields(entry):
            if part == _KEY and isinstance(content, bytes):
                key = bytes_text(content)
            elif part == _VALUE and isinstance(content, bytes):
                value = content
        out[key] = decode_value(value, depth)
    return out


def _plain_number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGERS else number
