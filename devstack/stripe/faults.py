"""Faults that tests order: the next calls of a kind, or a part of all calls by chance."""

import random
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

BEFORE = ("timeout_before", "error_before", "rate_limited", "lock_timeout", "reset_before")
AFTER = ("timeout_after", "error_after", "reset_after")
KINDS = (*BEFORE, *AFTER, "slow")


@dataclass
class Fault:
    kind: str
    method: str = "*"
    path: str = "*"
    count: int = 1
    seconds: float | None = None

    def matches(self, method: str, path: str) -> bool:
        return fnmatchcase(method, self.method) and fnmatchcase(path, self.path)


@dataclass
class Faults:
    """Ordered faults come first, the oldest first; then chance."""

    ordered: list[Fault] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    rates: dict[str, float] = field(default_factory=dict)
    random_path: str = "/v*"
    _dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - tests repeat it

    def add(self, fault: Fault) -> None:
        """Raises ValueError for a kind there is not."""
        self._check_kind(fault.kind)
        self.ordered.append(fault)

    def set_rates(self, rates: dict[str, float], *, seed: int, path: str) -> None:
        """Raises ValueError for a kind there is not, or for rates above 1 in sum."""
        for kind in rates:
            self._check_kind(kind)
        if sum(rates.values()) > 1:
            raise ValueError("the rates of faults must not add up to more than 1")
        self.rates, self.random_path, self._dice = dict(rates), path, random.Random(seed)  # noqa: S311 - as above

    def clear(self) -> None:
        self.ordered, self.rates = [], {}

    def draw(self, method: str, path: str) -> Fault | None:
        """The fault this call meets; it is used up."""
        fault = self._next_ordered(method, path) or self._by_chance(method, path)
        if fault is not None:
            self.happened[fault.kind] += 1
        return fault

    def _next_ordered(self, method: str, path: str) -> Fault | None:
        for fault in self.ordered:
            if fault.matches(method, path):
                fault.count -= 1
                if fault.count <= 0:
                    self.ordered.remove(fault)
                return fault
        return None

    def _by_chance(self, method: str, path: str) -> Fault | None:
        if not self.rates or not fnmatchcase(path, self.random_path):
            return None
        drawn = self._dice.random()
        for kind, rate in self.rates.items():
            if drawn < rate:
                return Fault(kind, method, path)
            drawn -= rate
        return None

    @staticmethod
    def _check_kind(kind: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"there is no fault {kind}; there are {', '.join(KINDS)}")
