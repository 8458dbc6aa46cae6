"""Lines to columns of events: `attribution.attribute_line` for whole batches, without an object for each event.

A property test holds both to the same answer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, cast

from msgspec.structs import astuple

from control_plane.foundation.clock import from_ms
from control_plane.usage.collect.attribution import (
    MAX_METHOD_LENGTH,
    NUMBERS,
    is_shaped_like_receipt,
    judge_dimensions,
    judge_numbers,
)
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.collect.lines import MAX_PATH_LENGTH, UsageLine
from control_plane.usage.collect.mac import Identity, ReceiptReader
from control_plane.usage.collect.product_rules import ProductRules
from control_plane.usage.model import (
    EARLIEST_MS,
    FLAG_BAD_RECEIPT,
    FLAG_LONE_RECEIPT,
    FLAG_REPLAYED,
    LATEST_MS,
    HourKey,
)
from control_plane.usage.retention import countable_from_ms
from gateway_contract.counters import HOUR_MS
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import MAC_TEXT_LENGTH, Place, parse_refusal_note

_NO_FLAGS: tuple[str, ...] = ()
_NO_DIMENSIONS: dict[str, int] = {}


class Attribution:
    """Attributes lines under the gateway's secrets (all of them verify), by the catalog's names and rules."""

    def __init__(
        self, *, secrets: tuple[bytes, ...], endpoints: EndpointNames, rules: ProductRules | None = None
    ) -> None:
        self._upstream = ReceiptReader(secrets, Place.UPSTREAM)
        self._answer = ReceiptReader(secrets, Place.ANSWER)
        self._endpoints = endpoints
        self._rules = rules or ProductRules()

    def events(self, lines: Sequence[UsageLine], *, ingested_at_ms: int, shipper: str = "") -> EventColumns:
        """Return the events of a shipper's lines, in order.

        A line without hour goes to `implausible` instead, one of an hour that is never counted again to `expired`.
        A line whose answer has a receipt of no secret of ours is an event of nobody, and goes to `unproven` too.
        """
        flags: dict[int, tuple[str, ...]] = {}
        identities = self._identities(lines, flags)
        implausible: list[UsageLine] = []
        expired: list[UsageLine] = []
        first_ms = countable_from_ms(from_ms(ingested_at_ms))
        if None in identities or _earliest_ms(identities) < first_ms:
            pairs = list(zip(lines, identities, strict=True))
            implausible = [line for line, identity in pairs if identity is None]
            expired = [line for line, identity in pairs if identity is not None and identity[1] < first_ms]
            lines = [line for line, identity in pairs if identity is not None and identity[1] >= first_ms]
            flags = {}
            identities = self._identities(lines, flags)
        if not lines:
            return EventColumns(implausible=implausible, expired=expired)
        unproven = [
            lines[row]
            for row, found in flags.items()
            if FLAG_BAD_RECEIPT in found and _is_unproven(lines[row], identities[row])
        ]
        columns = self._columns(lines, identities, flags, ingested_at_ms)
        columns["shipper"] = [shipper] * len(lines)
        counted = Counter(flag for row in flags.values() for flag in row)
        replay_hours = _replay_hours(columns, flags) if counted[FLAG_REPLAYED] else set()
        return EventColumns(columns, _hours(columns), replay_hours, implausible, expired, unproven, counted)

    def _identities(self, lines: Sequence[UsageLine], flags: dict[int, tuple[str, ...]]) -> list[Identity | None]:
        """Return what the receipts say, line by line; None for a line that has no hour. Fills `flags` by row."""
        sent_texts, answer_texts = [line.ru for line in lines], [line.ra for line in lines]
        identities = self._upstream.read(sent_texts)
        rows = [
            row
            for row, (identity, sent, answered) in enumerate(
                zip(identities, sent_texts, answer_texts, strict=True)
            )
            # as `attribution.is_same_call` says
            if identity is None or sent[:-MAC_TEXT_LENGTH] != answered[:-MAC_TEXT_LENGTH]
        ]
        if rows:
            answers = self._answer.read([answer_texts[row] for row in rows])
            for row, answered in zip(rows, answers, strict=True):
                identities[row] = _unconfirmed(identities[row], answered, lines[row], row, flags)
        return identities

    def _columns(
        self,
        lines: Sequence[UsageLine],
        identities: Sequence[Identity | None],
        flags: dict[int, tuple[str, ...]],
        ingested_at_ms: int,
    ) -> dict[str, Sequence[Any]]:
        event_ids, times, emitters, numbers, subjects = zip(*identities, strict=True)
        accounts, keys, modes, products, outcomes, units = zip(*subjects, strict=True)
        given = dict(zip(UsageLine.__struct_fields__, zip(*map(astuple, lines), strict=True), strict=True))
        routes, methods, paths = given["rt"], given["m"], given["p"]
        columns: dict[str, Sequence[Any]] = {
            "event_id": event_ids,
            "request_id": given["id"],
            "occurred_at": times,
            "account_id": accounts,
            "key_id": keys,
            "mode": modes,
            "product": products,
            "service": given["sv"],
            "route": routes,
            "endpoint": list(map(self._endpoints.name, products, methods, routes, paths)),
            "method": _cut(methods, MAX_METHOD_LENGTH),
            "path": _cut(paths, MAX_PATH_LENGTH),
            "outcome": outcomes,
            "units": units,
            "dimensions": self._dimensions(given["u"], products, routes, flags),
            "client_ip": given["ip"],
            "emitter": emitters,
            "call_number": numbers,
            "ingested_at": [ingested_at_ms] * len(lines),
        }
        columns |= {name: given[source] for name, (source, _, _) in NUMBERS.items()}
        _bound_numbers(lines, columns, flags)
        if any(given["rp"]):
            self._note_replays(lines, products, flags)
        rows: list[tuple[str, ...]] = [_NO_FLAGS] * len(lines)
        for row, found in flags.items():
            rows[row] = found
        columns["flags"] = rows
        return columns

    def _dimensions(
        self,
        units_found: Sequence[Mapping[str, Any]],
        products: Sequence[str],
        routes: Sequence[str],
        flags: dict[int, tuple[str, ...]],
    ) -> list[dict[str, int]]:
        judged = [_NO_DIMENSIONS] * len(units_found)
        for row, found in enumerate(units_found):
            if found:
                judged[row], bad = judge_dimensions(found, self._rules.maximums(products[row], routes[row]))
                if bad:
                    flags[row] = flags.get(row, _NO_FLAGS) + bad
        return judged

    def _note_replays(
        self, lines: Sequence[UsageLine], products: Sequence[str], flags: dict[int, tuple[str, ...]]
    ) -> None:
        for row, line in enumerate(lines):
            if line.rp and self._rules.is_replay(products[row], line):
                flags[row] = (*flags.get(row, _NO_FLAGS), FLAG_REPLAYED)


def _unconfirmed(
    sent: Identity | None, answered: Identity | None, line: UsageLine, row: int, flags: dict[int, tuple[str, ...]]
) -> Identity | None:
    """Judge a line whose receipts do not say the same; `sent` and `answered` are what those of ours say."""
    note = parse_refusal_note(line.ra) if line.ra else None
    odd_answer = line.ra and note is None and answered is None
    odd_request = line.ru and (sent is None or line.ra)
    found = [FLAG_BAD_RECEIPT] if odd_answer or odd_request else []
    identity = answered or (sent if note is None else None)
    if identity is not None and identity is sent:
        found.append(FLAG_LONE_RECEIPT)
    if found:
        flags[row] = tuple(found)
    if identity is not None:
        return identity
    if not EARLIEST_MS <= line.at < LATEST_MS:
        return None
    outcome = note or Outcome.UNATTRIBUTED
    return (line.id, line.at, "", 0, ("", "", Mode.LIVE.value, "", outcome.value, 0))


def _is_unproven(line: UsageLine, identity: Identity | None) -> bool:
    """Say whether this may be a call of ours, by a gateway whose secret is not known here (yet).

    Only the answer's receipt counts: anybody can send one in a request.
    """
    return identity is not None and not identity[4][0] and is_shaped_like_receipt(line.ra)


def _cut(texts: Sequence[str], length: int) -> Sequence[str]:
    return [text[:length] for text in texts] if max(map(len, texts)) > length else texts


def _earliest_ms(identities: Sequence[Identity | None]) -> int:
    """Return the first moment, of none the last there is; there is no None among them."""
    return min(map(itemgetter(1), cast("Sequence[Identity]", identities)), default=LATEST_MS)


def _hours(columns: Mapping[str, Sequence[Any]]) -> set[HourKey]:
    accounts, times = columns["account_id"], columns["occurred_at"]
    first, last = min(times) // HOUR_MS, max(times) // HOUR_MS
    if first == last:
        return set(map(HourKey._make, zip(set(accounts), repeat(first * HOUR_MS), strict=False)))
    hours = {(account_id, at_ms // HOUR_MS) for account_id, at_ms in zip(accounts, times, strict=True)}
    return {HourKey(account_id, hour * HOUR_MS) for account_id, hour in hours}


def _replay_hours(columns: Mapping[str, Sequence[Any]], flags: Mapping[int, tuple[str, ...]]) -> set[HourKey]:
    """Return the hours with replays of somebody's calls; those of nobody are never billed anyway."""
    accounts, times = columns["account_id"], columns["occurred_at"]
    return {
        HourKey(accounts[row], times[row] - times[row] % HOUR_MS)
        for row, found in flags.items()
        if FLAG_REPLAYED in found and accounts[row]
    }


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
