"""Call numbers and what they prove. Pure.

The limit script numbers the calls of a billing period 1, 2, 3 ... (`gateway_contract.counters`), and each call's
number stands in its event. So the numbers that an hour was given are known from the counters alone, and a number
without an event is a call that was admitted and never logged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """What is known of one counter's hour.

    `waiting`: too early to say. `complete`: every number issued is stored. `missing`: some are not. `surplus`:
    more numbered calls are stored than were counted, so Redis went back to older data. `unknown`: Redis lost what
    it had counted, nobody can say.
    """

    WAITING = "waiting"
    COMPLETE = "complete"
    MISSING = "missing"
    SURPLUS = "surplus"
    UNKNOWN = "unknown"


INCOMPLETE = frozenset({State.MISSING, State.SURPLUS, State.UNKNOWN})


class Numbers(NamedTuple):
    """Call numbers first to last, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class CounterReading:
    """One period's counter at one moment. Hours are numbers (hours since 1970).

    `last_number` issued so far; `skipped` were never issued; `calls` and `not_counted` by hour, for every hour
    from the first that is asked for up to the present one.
    """

    last_number: int
    skipped: tuple[tuple[int, int], ...]
    calls: Mapping[int, int]
    not_counted: Mapping[int, int]

    def issued(self, hour: int) -> int:
        """Return how many numbers the limit script issued in this hour."""
        return max(0, self.calls.get(hour, 0) - self.not_counted.get(hour, 0))


@dataclass(frozen=True, slots=True)
class CountedHour:
    """What a counter says of an hour: calls admitted by number, those that it only heard of from usage.

    `numbers` are the numbers issued, ascending; fewer than `admitted` where the counter contradicts itself.
    """

    admitted: int
    not_counted: int
    numbers: tuple[Numbers, ...] = ()


NOTHING_COUNTED = CountedHour(0, 0)


@dataclass(frozen=True, slots=True)
class StoredCalls:
    """Calls of one hour in the event store: with a number, and without (made while Redis was away)."""

    numbered: int = 0
    unnumbered: int = 0


@dataclass(frozen=True, slots=True)
class MissingCalls:
    """Neighbouring numbers that have no event, and the moments (ms) between which they were issued.

    None where no neighbour is stored. `nodes`: who may have had them (see `suspects`).
    """

    numbers: Numbers
    after_ms: int | None
    before_ms: int | None
    nodes: tuple[str, ...] = ()


def hours_of_numbers(reading: CounterReading, hours: Iterable[int]) -> dict[int, CountedHour]:
    """Return what the counter says of these hours, those without a call left out.

    Numbers are issued in the order of time, so those of the last hour end at the last number, and so on backwards.
    """
    wanted, found = set(hours), {}
    left = _Backwards(reading.last_number, reading.skipped)
    for hour in sorted({*reading.calls, *reading.not_counted}, reverse=True):
        numbers = left.take(reading.issued(hour))
        if hour in wanted and reading.calls.get(hour):
            found[hour] = CountedHour(reading.issued(hour), reading.not_counted.get(hour, 0), numbers)
    return found


class _Backwards:
    """Hands out issued numbers from the last one down, past those that were skipped."""

    def __init__(self, last: int, skipped: Sequence[tuple[int, int]]) -> None:
        self._next = last
        self._skipped = sorted(skipped)

    def take(self, count: int) -> tuple[Numbers, ...]:
        taken: list[Numbers] = []
        while count > 0:
            while self._skipped and self._next <= self._skipped[-1][1]:
                self._next = min(self._next, self._skipped.pop()[0] - 1)
            lowest = self._skipped[-1][1] + 1 if self._skipped else 1
            if self._next < lowest:
                break  # more were counted than there are numbers
            first = max(lowest, self._next - count + 1)
            taken.append(Numbers(first, self._next))
            count -= self._next - first + 1
            self._next = first - 1
        return tuple(reversed(taken))


def gaps(numbers: Numbers, stored: Sequence[tuple[int, int]]) -> list[MissingCalls]:
    """Return which of the numbers are not stored; `stored` are (number, ms), by number, also some outside."""
    found: list[MissingCalls] = []
    expected, after_ms = numbers.first, None
    for number, at_ms in stored:
        if number >= expected:
            last = min(number - 1, numbers.last)
            if expected <= last:
                found.append(MissingCalls(Numbers(expected, last), after_ms, at_ms))
            expected = number + 1
        if expected > numbers.last:
            return found
        after_ms = at_ms
    return [*found, MissingCalls(Numbers(expected, numbers.last), after_ms, None)]


def judge(
    counted: CountedHour | None, stored: StoredCalls, *, missing: int, is_shared: bool, is_early: bool
) -> State:
    """Return the state of one counter's hour, whose shippers have all shipped past it.

    `is_shared`: another subscription of the same product had calls in this hour, so that a call may stand in the
    wrong one. `is_early`: calls that took long may still arrive.
    """
    counted = counted or NOTHING_COUNTED
    if missing:
        return State.WAITING if is_early else State.MISSING
    if counted.not_counted > stored.unnumbered:
        return State.UNKNOWN
    if stored.numbered > counted.admitted and not is_shared:
        return State.SURPLUS if counted.admitted else State.UNKNOWN
    return State.COMPLETE


@dataclass(frozen=True, slots=True)
class Emitter:
    """A plugin process as the store knows it around an hour. `holes`: decisions of it that nobody has heard of."""

    name: str
    shipper: str
    first_ms: int
    last_ms: int
    holes: int = 0


MOST_SUSPECTS = 5
HEARD_LATELY_MS = 10 * 60_000


def suspects(missing: MissingCalls, emitters: Iterable[Emitter], *, hour_ms: int) -> tuple[str, ...]:
    """Return which processes may have had the missing calls, as `node/emitter`, the likeliest first.

    Those that were heard before and not after (killed), and those that lack decisions between what is stored
    (lines lost).
    """
    after_ms = hour_ms if missing.after_ms is None else missing.after_ms
    before_ms = hour_ms + 3_600_000 if missing.before_ms is None else missing.before_ms
    found = []
    for emitter in emitters:
        fell_silent = after_ms - HEARD_LATELY_MS <= emitter.last_ms <= before_ms
        lacks = emitter.holes > 0 and emitter.first_ms <= before_ms and emitter.last_ms >= after_ms
        if fell_silent or lacks:
            found.append((not fell_silent, abs(before_ms - emitter.last_ms), node_name(emitter)))
    return tuple(name for _, _, name in sorted(found)[:MOST_SUSPECTS])


def node_name(emitter: Emitter) -> str:
    """Return `node/emitter`; the emitter alone where the node is not known."""
    return f"{emitter.shipper}/{emitter.name}" if emitter.shipper else emitter.name
