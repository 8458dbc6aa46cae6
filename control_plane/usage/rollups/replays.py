"""Which replays are billed: an answer that the upstream repeated is billed once, with the call that made it. Pure.

A call that is flagged `replayed` is not billed if an earlier call of the same account, product, mode, method and
path was billed at most 24 hours before it: its *original*. Otherwise it is *unmatched*: the upstream speaks of a
call that nobody knows (the first attempt failed or was never seen here), so it is billed as any other and is the
original of those that follow. So an upstream that says `true` always, by mistake, has each call billed once in 24
hours, never none.

Calls are ordered by their time, then by their event id. Once an hour has a billed call, every later replay of that
call in it has an original: an hour has at most one unmatched replay for each call, and this is found from sums.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

from control_plane.usage.model import HourKey
from control_plane.usage.store.events import HourFigures, Voids
from gateway_contract.counters import HOUR_MS

_SUMS = ("calls", "units", "bytes_in", "bytes_out", "latency_ms", "gateway_ms", "upstream_ms")

HOURS_BACK = 24
WINDOW_MS = HOURS_BACK * HOUR_MS


class CallKey(NamedTuple):
    """What an original and its replays have in common; the hash covers product, mode, method and path."""

    account_id: str
    call_hash: str


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Calls of one key in one hour that are all replays or none, with the first one's figures (`calls` is 1)."""

    key: CallKey
    hour_ms: int
    is_replay: bool
    first_ms: int
    first_event_id: str
    last_ms: int
    first: HourFigures


class Original(NamedTuple):
    """A replay that is billed and by which later ones are judged."""

    at_ms: int
    event_id: str


Unmatched = dict[HourKey, dict[CallKey, Original]]
ReplaysAfter = Callable[[Sequence[HourKey], Mapping[CallKey, int]], Iterable[CallGroup]]
"""Reads again: the groups of replays in these hours, of these calls, each after a moment (ms)."""


@dataclass(frozen=True, slots=True)
class JudgedReplays:
    """The unmatched replays of each hour; what moves them from the sums of replays to those of other calls."""

    unmatched: Unmatched
    corrections: list[HourFigures]


NO_REPLAYS = JudgedReplays({}, [])


def hours_before(hours: Iterable[HourKey]) -> set[HourKey]:
    """Return the hours, of the same accounts, that can hold originals: the 24 before each."""
    return {
        HourKey(key.account_id, key.hour_ms - back * HOUR_MS) for key in hours for back in range(1, HOURS_BACK + 1)
    }


def judge_replays(
    hours: Iterable[HourKey],
    groups: Iterable[CallGroup],
    *,
    known: Unmatched,
    replays_after: ReplaysAfter,
    voids: Voids | None = None,
) -> JudgedReplays:
    """Say which replays of these hours are unmatched.

    A call that was voided is an original all the same: to give one call back must not bill its replay.

    Args:
        hours: those that hold replays.
        groups: calls of the same keys as these replays, billable ones only, in these hours and those before.
        known: unmatched replays of hours before that are not among `hours`.
        replays_after: asked where an original grows too old in the middle of an hour.
        voids: events that count nothing, so that there is nothing to move.
    """
    calls = _Calls(groups, known)
    unmatched: Unmatched = {key: {} for key in hours}
    figures: list[HourFigures] = []
    for hour_ms in sorted({key.hour_ms for key in unmatched}):
        now = [key for key in unmatched if key.hour_ms == hour_ms]
        candidates, in_mid_hour = calls.candidates(now)
        if in_mid_hour:
            candidates += _first_of_each(replays_after(now, in_mid_hour))
        for found in candidates:
            if calls.is_first(found):
                original = Original(found.first_ms, found.first_event_id)
                calls.add(found.key, hour_ms, original.at_ms)
                hour = HourKey(found.key.account_id, hour_ms)
                unmatched[hour][found.key] = original
                if found.first_event_id not in (voids or {}).get(hour, ()):
                    figures.append(found.first)
    moved = _added_up(figures)
    return JudgedReplays(unmatched, [replace(_times(sums, -1), replayed=True) for sums in moved] + moved)


class _Calls:
    """Originals by key and hour, and the replays that are to be judged."""

    def __init__(self, groups: Iterable[CallGroup], known: Unmatched) -> None:
        self._last: dict[CallKey, dict[int, int]] = defaultdict(dict)
        self._first: dict[tuple[CallKey, int], tuple[int, str]] = {}
        replays: dict[HourKey, list[CallGroup]] = defaultdict(list)
        for group in groups:
            if group.is_replay:
                replays[HourKey(group.key.account_id, group.hour_ms)].append(group)
                continue
            self.add(group.key, group.hour_ms, group.last_ms)
            place, first = (group.key, group.hour_ms), (group.first_ms, group.first_event_id)
            self._first[place] = min(first, self._first.get(place, first))
        for hour, originals in known.items():
            for key, original in originals.items():
                self.add(key, hour.hour_ms, original.at_ms)
        self._replays = {hour: _first_of_each(found) for hour, found in replays.items()}

    def add(self, key: CallKey, hour_ms: int, at_ms: int) -> None:
        hours = self._last[key]
        hours[hour_ms] = max(at_ms, hours.get(hour_ms, at_ms))

    def candidates(self, hours: Iterable[HourKey]) -> tuple[list[CallGroup], dict[CallKey, int]]:
        """Return the first replay of each call whose originals are too old by then, and the calls whose original
        grows too old within the hour, with that moment.
        """
        found: list[CallGroup] = []
        in_mid_hour: dict[CallKey, int] = {}
        for hour in hours:
            for group in self._replays.get(hour, ()):
                known_until = self._known_until(group.key, hour.hour_ms)
                if known_until < group.first_ms:
                    found.append(group)
                elif known_until < hour.hour_ms + HOUR_MS:
                    in_mid_hour[group.key] = known_until
        return found, in_mid_hour

    def is_first(self, replay: CallGroup) -> bool:
        """Say whether no original comes before a replay within its hour."""
        first = self._first.get((replay.key, replay.hour_ms))
        return first is None or (replay.first_ms, replay.first_event_id) < first

    def _known_until(self, key: CallKey, hour_ms: int) -> int:
        """Return the last moment at which a replay still has an original from the hours before."""
        last = max((at for hour, at in self._last[key].items() if hour < hour_ms), default=-WINDOW_MS - 1)
        return last + WINDOW_MS


def _first_of_each(groups: Iterable[CallGroup]) -> list[CallGroup]:
    first: dict[CallKey, CallGroup] = {}
    for group in groups:
        held = first.get(group.key)
        if held is None or (group.first_ms, group.first_event_id) < (held.first_ms, held.first_event_id):
            first[group.key] = group
    return list(first.values())


def _added_up(figures: Iterable[HourFigures]) -> list[HourFigures]:
    """Return sums of figures that fall into one row, as figures of calls that are no replays."""
    rows: dict[tuple[Any, ...], list[HourFigures]] = defaultdict(list)
    for one in figures:
        rows[_row_of(one)].append(one)
    return [_sum_of(some) for some in rows.values()]


_row_of = attrgetter("account_id", "hour_ms", "product", "mode", "key_id", "endpoint", "status", "outcome", "part")


def _sum_of(figures: Sequence[HourFigures]) -> HourFigures:
    dimensions: Counter[str] = Counter()
    for one in figures:
        dimensions.update(one.dimensions)
    sums = {name: sum(map(attrgetter(name), figures)) for name in _SUMS}
    return replace(figures[0], **sums, dimensions=dimensions, replayed=False)


def _times(figures: HourFigures, factor: int) -> HourFigures:
    return replace(
        figures,
        **{name: factor * getattr(figures, name) for name in _SUMS},
        dimensions={name: factor * amount for name, amount in figures.dimensions.items()},
    )
