"""What callers saw: each request numbered by its path, with its answer, and what became of each key."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from gateway_contract.receipts import Receipt

BROKEN = 0
SERVED = "served"
AGAIN = "?again="
GATEWAY_ERROR = "gateway_error"


class Door(StrEnum):
    """By which way the usage of a call leaves the gateway."""

    FILE_LOG = "file_log"
    METER = "meter"


@dataclass(slots=True)
class Call:
    """One request. `status` is BROKEN where the caller never saw the end of an answer.

    `account_id` and `key_id` are of the key that was presented, empty where it was nobody's. `code` is the problem
    code of a refusal, `served` where a receipt came with the answer, else `gateway_error`.
    `path` tells repetitions of one call apart by `?again=`, which is sent in a header only; with `replayed` the
    upstream was to say that it repeats an answer.
    Moments are wall-clock ms.
    """

    path: str
    caller: str
    account_id: str
    key_id: str
    door: Door
    begun_ms: int
    tokens: int = 0
    replayed: bool = False
    status: int = BROKEN
    code: str = ""
    answered_ms: int = 0
    receipt: Receipt | None = None


@dataclass(slots=True)
class KeyLife:
    """What happened to one key. Moments are wall-clock ms, 0 where it never happened.

    `revoked_ms` is when the API acknowledged the revocation, `projected_ms` when Redis was seen to know it.
    """

    key_id: str
    account_id: str
    text: str
    expires_ms: int = 0
    revoked_ms: int = 0
    projected_ms: int = 0


@dataclass(slots=True)
class Ledger:
    """All calls by path, and all keys that were ever used, by id (or by text, where they are nobody's)."""

    calls: dict[str, Call] = field(default_factory=dict)
    keys: dict[str, KeyLife] = field(default_factory=dict)
    strange_keys: set[str] = field(default_factory=set)
    by_status: Counter[int] = field(default_factory=Counter)

    def begin(self, call: Call) -> None:
        self.calls[call.path] = call

    def end(self, call: Call) -> None:
        """Enter the answer, or that there was none."""
        self.by_status[call.status] += 1

    def key_texts(self) -> set[str]:
        """Every key that went over the wire, whoever's it was."""
        return self.strange_keys | {life.text for life in self.keys.values()}

    @property
    def served(self) -> int:
        return sum(count for status, count in self.by_status.items() if status == 200)  # noqa: PLR2004 - OK

    @property
    def broken(self) -> int:
        return self.by_status[BROKEN]
