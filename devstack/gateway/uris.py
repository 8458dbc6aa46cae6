"""Paths as Kong sees them: percent-decoding of harmless characters, dot segments, escaping for the upstream.

A path is a str in which each character is one byte (latin-1), as it came over the wire.
"""

import re

_RESERVED = frozenset(b"!*'();:@&=+$,/?%#[]")
_TRIPLET = re.compile(r"%([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(r"[^!#$&'()*+,/:;=?@\[\]A-Za-z0-9\-_.~%]")


def readable(text: str) -> str:
    """From one character per byte to Unicode; bytes that are not UTF-8 become U+FFFD."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")


def bytewise(text: str) -> str:
    """From Unicode (a route's path in YAML) to one character per byte."""
    return text if text.isascii() else text.encode().decode("latin-1")


def escape(path: str) -> str:
    """Percent-encode what must not stand in a request line; keeps what is already encoded."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", path)


def normalize(path: str) -> str:
    """Decode unreserved triplets, merge slashes, resolve dot segments."""
    if "%" in path:
        path = _TRIPLET.sub(_decode, path)
    if "." not in path and "//" not in path:
        return path
    return _without_dots(path)


def _decode(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return match[0].upper() if number in _RESERVED else chr(number)


def _without_dots(path: str) -> str:
    rest, output = path, list[str]()
    while rest:
        if rest in {"/.", "/.."}:
            if rest == "/.." and output:
                output.pop()
            rest = "/"
        elif rest in {".", ".."}:
            rest = ""
        elif rest.startswith("../"):
            rest = rest[3:]
        elif rest.startswith(("./", "/./")):
            rest = rest[2:]
        elif rest.startswith("/../"):
            rest = rest[3:]
            if output:
                output.pop()
        elif rest.startswith("//"):
            rest = rest[1:]
        else:
            cut = rest.find("/", 1)
            output.append(rest if cut < 0 else rest[:cut])
            rest = "" if cut < 0 else rest[cut:]
    return "".join(output)
