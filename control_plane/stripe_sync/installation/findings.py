"""What the doctor finds."""

from dataclasses import dataclass
from typing import Literal

Standing = Literal["ok", "advice", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `problem`: something does not work; `warning`: it may not; `advice`: look yourself."""

    about: str
    standing: Standing
    says: str


def ok(about: str, says: str) -> Finding:
    return Finding(about, "ok", says)


def advice(about: str, says: str) -> Finding:
    return Finding(about, "advice", says)


def warning(about: str, says: str) -> Finding:
    return Finding(about, "warning", says)


def problem(about: str, says: str) -> Finding:
    return Finding(about, "problem", says)
