"""The calls that customers make, one by one, and a plain count of them that knows nothing of the product."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, repeat

from devstack.year.model import BULK_UNITS, Use

HOUR_MS = 3_600_000
FAILED = 2  # with each hour of use: calls that the upstream failed
SANDBOX = 3  # and calls with a test key


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the gateway decided it."""

    number: int
    at: datetime
    account: str
    units: int
    status: int = 200
    live: bool = True
    refused: bool = False

    @property
    def billed(self) -> int:
        """Return the requests that it counts on a bill: served to a live key, and not failed."""
        return self.units if self.live and not self.refused and self.status < 500 else 0  # noqa: PLR2004 - HTTP


@dataclass(slots=True)
class Numbers:
    """Gives each call of the one gateway its number."""

    last: int = 0

    def next(self) -> int:
        self.last += 1
        return self.last


def calls_of(use: Use, account: str, numbers: Numbers) -> list[Call]:
    """Return the calls of an hour of use, from its first millisecond to its last."""
    kinds = list(_kinds(use))
    last = max(1, len(kinds) - 1)
    return [
        Call(
            numbers.next(),
            use.hour + timedelta(milliseconds=number * (HOUR_MS - 1) // last),
            account,
            units,
            status,
            live,
            refused,
        )
        for number, (units, status, live, refused) in enumerate(kinds)
    ]


def _kinds(use: Use) -> Iterator[tuple[int, int, bool, bool]]:
    bulk, single = divmod(use.requests, BULK_UNITS)
    return chain(
        repeat((BULK_UNITS, 200, True, False), bulk),
        # a 404 was served, and counts
        ((1, 404 if number % 10 == 9 else 200, True, False) for number in range(single)),  # noqa: PLR2004
        repeat((1, 500, True, False), FAILED),
        repeat((1, 200, False, False), SANDBOX),
        repeat((1, 429, True, True), use.refused),
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """What a plain count of an account's calls comes to."""

    calls: int
    requests: int


def count(calls: Sequence[Call]) -> dict[str, Counted]:
    """Count calls and billed requests by account, each call once."""
    numbers: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for call in {call.number: call for call in calls}.values():
        numbers[call.account] += 1
        requests[call.account] += call.billed
    return {account: Counted(numbers[account], requests[account]) for account in numbers}
