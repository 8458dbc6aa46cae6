"""What an answer of the server means for the events that were sent. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeAlias

_TAKEN = frozenset({"accepted", "duplicate"})
_NOT_TAKEN = frozenset({"rejected", "conflict"})
# what reading a text that is none of our server's may end in
_UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
_MAX_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Settled:
    """The server has judged every event; `rejected` by place: (code, message)."""

    rejected: Mapping[int, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Nothing is known of the events: send the same again, not before `seconds` where the server names a time.

    `fewer`: something on the way to the server takes no request so large.
    """

    reason: str
    seconds: float = 0.0
    fewer: bool = False


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The batch as a whole was refused: send fewer events at a time, to find the one that is at fault."""

    code: str
    message: str


Meaning: TypeAlias = Settled | TryAgain | TooMuch


def meaning_of(status: int, headers: Mapping[str, str], body: bytes, *, sent: int, now: datetime) -> Meaning:
    """Return what became of `sent` events. An answer that is not our server's never settles anything."""
    if status in {200, 207}:
        rejected = _results(body, sent)
        return TryAgain("the answer is not kong-monetize's") if rejected is None else Settled(rejected)
    code, message = _problem(body)
    if status in {400, 413, 422} and code:
        return TooMuch(code, message)
    reason = f"{status} {code or 'without a reason'}: {message}".rstrip(": ")
    return TryAgain(reason, _retry_after(headers, now), fewer=status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _results(body: bytes, sent: int) -> dict[int, tuple[str, str]] | None:
    try:
        results = json.loads(body)["results"]
        found = {
            int(result["index"]): (str(result["result"]), str(result["code"]), str(result["message"]))
            for result in results
        }
    except _UNREADABLE:
        return None
    whole = len(results) == sent and set(found) == set(range(sent))
    if not whole or not {result for result, _, _ in found.values()} <= _TAKEN | _NOT_TAKEN:
        return None
    return {index: (code, message) for index, (result, code, message) in found.items() if result in _NOT_TAKEN}


def _problem(body: bytes) -> tuple[str, str]:
    """Return code and detail of a problem document, empty where the body is none of ours."""
    try:
        found: Any = json.loads(body)
        return str(found["code"]), str(found["detail"])
    except _UNREADABLE:
        return "", ""


def _retry_after(headers: Mapping[str, str], now: datetime) -> float:
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(_MAX_RETRY_AFTER_SECONDS, float(text))
    try:
        seconds = (parsedate_to_datetime(text) - now).total_seconds()
    except _UNREADABLE:
        return 0.0
    return min(_MAX_RETRY_AFTER_SECONDS, max(0.0, seconds))
