"""Dead letters as people see them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from control_plane.usage.store.dead_letters import StoredLetter


class LetterState(StrEnum):
    """`open` until it was replayed with success, or dismissed."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True)
class Handling:
    """What was done about a letter. `result` is why the last replay failed, '' where it did not.

    `account_id` and `event_id` name the event it became ('' for an event of nobody, and where it became none).
    """

    state: LetterState = LetterState.OPEN
    attempts: int = 0
    result: str = ""
    account_id: str = ""
    event_id: str = ""
    reason: str = ""
    author: str = ""
    handled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A line that was set aside, and what was done about it."""

    stored: StoredLetter
    handling: Handling


UNTOUCHED = Handling()
