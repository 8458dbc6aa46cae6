"""Values that people type: limits and durations."""

import re

import typer

PER_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_LIMIT = re.compile(r"([0-9]{1,10})/(second|minute|hour|day)")
_DURATION = re.compile(r"([0-9]{1,8})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_limits(texts: list[str]) -> list[dict[str, int]]:
    """Return windows for `5/second`, `100/minute`."""
    windows = []
    for text in texts:
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise typer.BadParameter(f"--limit {text}: use NUMBER/second, /minute, /hour or /day")
        windows.append({"limit": int(match[1]), "window_ms": PER_MS[match[2]]})
    return windows


def parse_duration(text: str) -> int:
    """Return seconds for `0`, `90`, `30m`, `24h`, `7d`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text}: use a number of seconds, or like 30m, 24h, 7d")
    return int(match[1]) * _SECONDS[match[2]]


def read_pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """Return names and values for `NAME=VALUE`."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise typer.BadParameter(f"{option}: use NAME=VALUE")
    return [(name, value) for name, _, value in pairs]


def read_number(name: str, text: str) -> int:
    """Return a whole number; `name` says in the error which it was."""
    if not text.isascii() or not text.isdecimal():
        raise typer.BadParameter(f"{name}: must be a whole number")
    return int(text)
