"""Lines to columns of events: `attribution.attribute_line` for whole batches, without an object for each event.

A property test holds both to the same answer.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from control_plane.usage.attribution import MAX_METHOD_LENGTH, NUMBERS, judge_dimensions, judge_numbers
from control_plane.usage.endpoints import EndpointNames
from control_plane.usage.lines import MAX_PATH_LENGTH, UsageLine
from control_plane.usage.mac import ReceiptReader
from control_plane.usage.model import (
    EARLIEST_MS,
    FLAG_BAD_RECEIPT,
    LATEST_MS,
    MAX_SEQUENCE,
    MAX_UNITS,
    HourKey,
)
from gateway_contract.counters import HOUR_MS
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, parse_refusal_note

COLUMN_NAMES = (
    "event_id",
    "request_id",
    "occurred_at",
    "account_id",
    "key_id",
    "mode",
    "product",
    "service",
    "route",
    "endpoint",
    "method",
    "path",
    "status",
    "outcome",
    "units",
    "dimensions",
    "bytes_in",
    "bytes_out",
    "latency_ms",
    "gateway_ms",
    "upstream_ms",
    "client_ip",
    "emitter",
    "call_number",
    "flags",
    "ingested_at",
)
_MODES = frozenset(mode.value for mode in Mode)
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
_NO_FLAGS: tuple[str, ...] = ()
_NO_DIMENSIONS: dict[str, int] = {}
_line_fields = attrgetter("id", "sv", "rt", "m", "p", "ip", *(source for source, _, _ in NUMBERS.values()))

# what a receipt says of a call: event id, time, account, key, mode, product, outcome, units, emitter, call number
Identity = tuple[str, int, str, str, str, str, str, int, str, int]


@dataclass(slots=True)
class EventColumns:
    """Events by column (see COLUMN_NAMES; times as ms since 1970), and what was noticed about them."""

    columns: dict[str, Sequence[Any]]
    hours: set[HourKey] = field(default_factory=set)
    implausible: list[UsageLine] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    repeated_receipts: int = 0

    def __len__(self) -> int:
        return len(self.columns["event_id"])

    def slice(self, start: int, end: int) -> "EventColumns":
        """Return some of the rows, without the remarks."""
        return EventColumns({name: column[start:end] for name, column in self.columns.items()})


class Attribution:
    """Attributes lines under the gateway's secrets (all of them verify) and the catalog's endpoint names."""

    def __init__(self, *, secrets: tuple[bytes, ...], endpoints: EndpointNames) -> None:
        self._upstream = ReceiptReader(secrets, Place.UPSTREAM)
        self._answer = ReceiptReader(secrets, Place.ANSWER)
        self._endpoints = endpoints

    def events(self, lines: Sequence[UsageLine], *, ingested_at_ms: int) -> EventColumns:
        """Return the events of these lines, in order; a line without hour goes to `implausible` instead."""
        flags: dict[int, tuple[str, ...]] = {}
        identities = self._identities(lines, flags)
        implausible: list[UsageLine] = []
        if None in identities:
            implausible = [line for line, identity in zip(lines, identities, strict=True) if identity is None]
            lines = [line for line, identity in zip(lines, identities, strict=True) if identity is not None]
            flags = {}
            identities = self._identities(lines, flags)
        columns = self._columns(lines, identities, flags, ingested_at_ms)
        hours = {
            HourKey(account_id, at_ms - at_ms % HOUR_MS)
            for account_id, at_ms in zip(columns["account_id"], columns["occurred_at"], strict=True)
        }
        counted = Counter(flag for row in flags.values() for flag in row)
        repeated = _repeated_receipts(columns["event_id"], columns["request_id"])
        return EventColumns(columns, hours, implausible, counted, repeated)

    def _identities(self, lines: Sequence[UsageLine], flags: dict[int, tuple[str, ...]]) -> list[Identity | None]:
        """Return what the receipts say, line by line; None for a line that has no hour. Fills `flags` by row."""
        identities: list[Identity | None] = []
        append = identities.append
        read_upstream, identify = self._upstream.read, _identify
        for line in lines:
            if line.ru:
                fields = read_upstream(line.ru)
                if fields is not None:
                    identity = identify(fields)
                    if identity is not None:
                        append(identity)
                        continue
            append(self._identity_from_answer(line, len(identities), flags))
        return identities

    def _identity_from_answer(
        self, line: UsageLine, row: int, flags: dict[int, tuple[str, ...]]
    ) -> Identity | None:
        if line.ru:
            flags[row] = (FLAG_BAD_RECEIPT,)
        note = None
        if line.ra:
            note = parse_refusal_note(line.ra)
            if note is None:
                fields = self._answer.read(line.ra)
                identity = _identify(fields) if fields is not None else None
                if identity is not None:
                    return identity
                flags[row] = (FLAG_BAD_RECEIPT,)
        if not EARLIEST_MS <= line.at < LATEST_MS:
            return None
        outcome = note or Outcome.UNATTRIBUTED
        return (line.id, line.at, "", "", Mode.LIVE.value, "", outcome.value, 0, "", 0)

    def _columns(
        self,
        lines: Sequence[UsageLine],
        identities: Sequence[Identity | None],
        flags: dict[int, tuple[str, ...]],
        ingested_at_ms: int,
    ) -> dict[str, Sequence[Any]]:
        if not lines:
            return dict.fromkeys(COLUMN_NAMES, ())
        event_ids, times, accounts, keys, modes, products, outcomes, units, emitters, numbers = zip(
            *identities, strict=True
        )
        ids, services, routes, methods, paths, addresses, *figures = zip(*map(_line_fields, lines), strict=True)
        name = self._endpoints.name
        columns: dict[str, Sequence[Any]] = {
            "event_id": event_ids,
            "request_id": ids,
            "occurred_at": times,
            "account_id": accounts,
            "key_id": keys,
            "mode": modes,
            "product": products,
            "service": services,
            "route": routes,
            "endpoint": list(map(name, products, methods, routes, paths)),
            "method": _cut(methods, MAX_METHOD_LENGTH),
            "path": _cut(paths, MAX_PATH_LENGTH),
            "outcome": outcomes,
            "units": units,
            "dimensions": _dimensions(lines, flags),
            "client_ip": addresses,
            "emitter": emitters,
            "call_number": numbers,
            "ingested_at": [ingested_at_ms] * len(lines),
        }
        columns.update(zip(NUMBERS, figures, strict=True))
        _bound_numbers(lines, columns, flags)
        rows: list[tuple[str, ...]] = [_NO_FLAGS] * len(lines)
        for row, found in flags.items():
            rows[row] = found
        columns["flags"] = rows
        return columns


def _identify(fields: Sequence[str]) -> Identity | None:
    """Return what a receipt with a true MAC says, or None if the gateway writes no such receipt."""
    (
        _,
        emitter,
        sequence_text,
        number_text,
        decided_text,
        account_id,
        key_id,
        product,
        mode,
        outcome,
        units_text,
    ) = fields
    try:
        sequence, number = int(sequence_text), int(number_text)
        decided_at_ms, units = int(decided_text), int(units_text)
    except ValueError:
        return None
    sound = (
        EARLIEST_MS <= decided_at_ms < LATEST_MS
        and 0 <= sequence <= MAX_SEQUENCE
        and 0 <= number <= MAX_SEQUENCE
        and 0 <= units <= MAX_UNITS
        and account_id
        and mode in _MODES
        and outcome in _OUTCOMES
    )
    if not sound:
        return None
    return (
        f"{emitter}-{sequence}",
        decided_at_ms,
        account_id,
        key_id,
        mode,
        product,
        outcome,
        units,
        emitter,
        number,
    )


def _cut(texts: Sequence[str], length: int) -> Sequence[str]:
    return [text[:length] for text in texts] if max(map(len, texts)) > length else texts


def _dimensions(lines: Sequence[UsageLine], flags: dict[int, tuple[str, ...]]) -> list[dict[str, int]]:
    found = [_NO_DIMENSIONS] * len(lines)
    for row, line in enumerate(lines):
        if line.u:
            found[row], bad = judge_dimensions(line.u)
            if bad:
                flags[row] = flags.get(row, _NO_FLAGS) + bad
    return found


def _bound_numbers(
    lines: Sequence[UsageLine], columns: dict[str, Sequence[Any]], flags: dict[int, tuple[str, ...]]
) -> None:
    """Move figures that the store cannot hold to its bounds; mostly a look at each column's extremes is all."""
    if all(low <= min(columns[name]) and max(columns[name]) <= high for name, (_, low, high) in NUMBERS.items()):
        return
    judged = [judge_numbers(line) for line in lines]
    for name in NUMBERS:
        columns[name] = [numbers[name] for numbers, _ in judged]
    for row, (_, bad) in enumerate(judged):
        if bad:
            flags[row] = flags.get(row, _NO_FLAGS) + bad


def _repeated_receipts(event_ids: Sequence[str], request_ids: Sequence[str]) -> int:
    """Count receipts that came under more than one request id in this batch."""
    if len(set(event_ids)) == len(event_ids):
        return 0
    return len(set(zip(event_ids, request_ids, strict=True))) - len(set(event_ids))
