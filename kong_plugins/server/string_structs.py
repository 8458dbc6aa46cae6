"""A google.protobuf.Struct, or another message, that holds nothing but strings: headers, on the hot path.

Whatever is anything else is left to `wire`, which can do all of it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

_ONE_BYTE: Final = 0x80
_LONGEST: Final = 0x4000 - 2 * _ONE_BYTE  # two bytes hold the length of an entry with such a value
# tags of a map entry, its key, its value and a string in it
_ENTRY_TAG, _KEY_TAG, _VALUE_TAG, _STRING_TAG = 10, 10, 18, 26
_CHARS: Final = tuple(chr(byte) for byte in range(256))


def encode_strings(values: Mapping[str, object]) -> bytes | None:
    """Return the Struct, or None where a name or value is no ASCII string or is very long.

    Each entry is put together as text of one byte a character: one encoding for all of it.
    """
    out = []
    for name, value in values.items():
        if type(value) is not str or not value.isascii() or not name.isascii():
            return None
        size, key_size = len(value), len(name)
        total = key_size + size + 6
        if total < _ONE_BYTE:
            lengths = f"\n{_CHARS[total]}\n{_CHARS[key_size]}{name}\x12{_CHARS[size + 2]}\x1a{_CHARS[size]}"
        elif key_size < _ONE_BYTE <= size < _LONGEST:
            entry, inner = _two_bytes(total + 2), _two_bytes(size + 3)  # both lengths take a byte more
            lengths = f"\n{entry}\n{_CHARS[key_size]}{name}\x12{inner}\x1a{_two_bytes(size)}"
        else:
            return None
        out.append(lengths + value)
    return "".join(out).encode("latin-1")


def encode_texts(get: Callable[[str], object], fields: tuple[tuple[str, str], ...]) -> bytes | None:
    """Return string fields, given as (tag, name), less those that are None; None as above."""
    out = []
    for tag, name in fields:
        value = get(name)
        if value is not None:
            if type(value) is not str or len(value) >= _ONE_BYTE or not value.isascii():
                return None
            out.append(f"{tag}{_CHARS[len(value)]}{value}")
    return "".join(out).encode("latin-1")


def decode_strings(data: bytes) -> dict[str, Any] | None:  # noqa: C901, PLR0911 - unrolled: it is the hot path
    """Return a Struct that holds nothing but strings, or None (or IndexError) where it is anything else."""
    out: dict[str, Any] = {}
    text = data.decode("latin-1")
    at, end = 0, len(data)
    while at < end:
        size = data[at + 1]
        key_at = at + 2
        if size >= _ONE_BYTE:
            if data[key_at] >= _ONE_BYTE:
                return None
            size = size & 0x7F | data[key_at] << 7
            key_at += 1
        stop = key_at + size
        key_stop = key_at + 2 + data[key_at + 1]
        size = data[key_stop + 1]
        value_at = key_stop + 2
        if size >= _ONE_BYTE:
            if data[value_at] >= _ONE_BYTE:
                return None
            size = size & 0x7F | data[value_at] << 7
            value_at += 1
        if value_at + size != stop or stop > end or data[key_stop] != _VALUE_TAG:
            return None
        if data[at] != _ENTRY_TAG or data[key_at] != _KEY_TAG:
            return None
        size = data[value_at + 1]
        text_at = value_at + 2
        if size >= _ONE_BYTE:
            if data[text_at] >= _ONE_BYTE:
                return None
            size = size & 0x7F | data[text_at] << 7
            text_at += 1
        if text_at + size != stop or data[value_at] != _STRING_TAG or data[key_at + 1] >= _ONE_BYTE:
            return None
        key, value = text[key_at + 2 : key_stop], text[text_at:stop]
        if not key.isascii():
            key = data[key_at + 2 : key_stop].decode("utf-8", "surrogateescape")
        if not value.isascii():
            value = data[text_at:stop].decode("utf-8", "surrogateescape")
        out[key] = value
        at = stop
    return out


def _two_bytes(size: int) -> str:
    return _CHARS[size & 0x7F | _ONE_BYTE] + _CHARS[size >> 7]
