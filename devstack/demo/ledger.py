"""The client's own count: what a caller knows by counting its answers, without asking the product."""

from collections import Counter
from dataclasses import dataclass, field

NOBODY = "(no account)"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the client saw it.

    `caller` is the account's name or NOBODY; `code` is the problem code of a refusal, "served" otherwise.
    """

    caller: str
    endpoint: str
    status: int
    code: str


@dataclass(slots=True)
class Ledger:
    """Counts answers by (caller, endpoint, status, code), and keeps the first refusal of each kind to show."""

    counts: Counter[Answer] = field(default_factory=Counter)
    broken: int = 0

    def add(self, answer: Answer) -> None:
        self.counts[answer] += 1

    @property
    def total(self) -> int:
        return self.counts.total()

    def calls(self, **wanted: str | int) -> int:
        """Return how many answers have these values, e.g. `calls(caller="Acme", status=200)`."""
        return sum(
            count
            for answer, count in self.counts.items()
            if all(getattr(answer, name) == value for name, value in wanted.items())
        )

    def by(self, *names: str) -> Counter[tuple[str | int, ...]]:
        """Return counts grouped by these fields of an answer."""
        grouped: Counter[tuple[str | int, ...]] = Counter()
        for answer, count in self.counts.items():
            grouped[tuple(getattr(answer, name) for name in names)] += count
        return grouped
