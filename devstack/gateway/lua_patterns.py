"""Lua patterns as regular expressions: enough for the `match` rules of plugin schemas."""

import re

_CLASSES = {
    "a": "A-Za-z",
    "c": r"\x00-\x1f\x7f",
    "d": "0-9",
    "l": "a-z",
    "p": re.escape(r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"""),
    "s": r" \t\n\v\f\r",
    "u": "A-Z",
    "w": "A-Za-z0-9",
    "x": "A-Fa-f0-9",
}


class LuaPatternError(ValueError):
    """The pattern uses something that has no regular expression here (%b, %f, back-references)."""


def compile_lua_pattern(pattern: str) -> re.Pattern[str]:
    """Return an expression for `search` that matches what Lua's string.match would."""
    out: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "^" and index == 0:
            out.append(r"\A")
        elif char == "$" and index == len(pattern) - 1:
            out.append(r"\Z")
        elif char == "%":
            index += 1
            out.append(_escaped(pattern, index, inside_set=False))
        elif char == "[":
            piece, index = _set(pattern, index)
            out.append(piece)
        elif char == "-":
            out.append("*?")
        elif char in "*+?().":
            out.append(char)
        else:
            out.append(re.escape(char))
        index += 1
    return re.compile("".join(out), re.DOTALL)


def _escaped(pattern: str, index: int, *, inside_set: bool) -> str:
    if index >= len(pattern):
        raise LuaPatternError(f"{pattern!r} ends with %")
    char = pattern[index]
    if char.lower() in _CLASSES:
        ranges = _CLASSES[char.lower()]
        if char.islower():
            return ranges if inside_set else f"[{ranges}]"
        if inside_set:
            raise LuaPatternError(f"%{char} inside a set is not supported")
        return f"[^{ranges}]"
    if char.isalnum():
        raise LuaPatternError(f"%{char} is not supported")
    return re.escape(char)


def _set(pattern: str, start: int) -> tuple[str, int]:
    out, index = ["["], start + 1
    if pattern[index : index + 1] == "^":
        out.append("^")
        index += 1
    first = True
    while first or pattern[index : index + 1] != "]":
        first = False
        if index >= len(pattern):
            raise LuaPatternError(f"{pattern!r} has a set without an end")
        if pattern[index] == "%":
            index += 1
            out.append(_escaped(pattern, index, inside_set=True))
        elif pattern[index] == "-":
            out.append("-")
        else:
            out.append(re.escape(pattern[index]))
        index += 1
    return "".join(out) + "]", index
