"""Whose call was it? The plain form of the rule; `batch_attribution` does the same for whole batches, and faster.

A receipt whose MAC holds decides, and nothing else does: event id, account, key, product, mode, outcome, units and
time come from it alone. A line without one takes the request's id and Kong's time, belongs to nobody and is never
billed.

An admitted call has its receipt in the request, as the upstream got it, and in the answer. Where both are ours but
of two calls, the answer's decides: a caller cannot write there, while an upstream that shows its request headers
to callers hands them receipts that they can send again. A receipt that stands in the request alone is taken, since
another plugin may have cleared the answer's, and flagged: it gives way to any other line of the same event.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.collect.lines import MAX_PATH_LENGTH, UsageLine
from control_plane.usage.collect.product_rules import ProductRules
from control_plane.usage.model import (
    EARLIEST_MS,
    FLAG_BAD_NUMBER,
    FLAG_BAD_RECEIPT,
    FLAG_BAD_UNITS,
    FLAG_LONE_RECEIPT,
    FLAG_REPLAYED,
    LATEST_MS,
    MAX_BYTES,
    MAX_LATENCY_MS,
    MAX_SEQUENCE,
    MAX_STATUS,
    MAX_UNITS,
)
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import (
    FIELD_COUNT,
    MAC_TEXT_LENGTH,
    VERSION,
    Place,
    Receipt,
    parse_refusal_note,
    verify_receipt,
)
from gateway_contract.usage_events import UsageEvent

MAX_METHOD_LENGTH = 16
MAX_DIMENSIONS = 16
_MOST_DIGITS = len(str(MAX_UNITS))
_DIMENSION = re.compile(r"[a-z][a-z0-9_]{0,31}")


class ImplausibleTimeError(ValueError):
    """A line without a receipt says it happened before 2020 or after 2099: it has no hour to stand in."""


def attribute_line(
    line: UsageLine,
    *,
    secrets: tuple[bytes, ...],
    endpoints: EndpointNames,
    rules: ProductRules | None = None,
    shipper: str = "",
) -> UsageEvent:
    """Return the event of one line. Forged or odd receipts are flagged, never an exception.

    Raises:
        ImplausibleTimeError: there is no receipt and Kong's time cannot be true.
    """
    receipt, flags = find_receipt(line, secrets)
    rules = rules or ProductRules()
    product = receipt.product if receipt else ""
    dimensions, unit_flags = judge_dimensions(line.u, rules.maximums(product, line.rt))
    replay_flags = (FLAG_REPLAYED,) if rules.is_replay(product, line) else ()
    numbers, number_flags = judge_numbers(line)
    if receipt is None and not EARLIEST_MS <= line.at < LATEST_MS:
        raise ImplausibleTimeError(f"no receipt, and {line.at} ms since 1970 is not a time of ours")
    return UsageEvent(
        event_id=receipt.event_id if receipt else line.id,
        request_id=line.id,
        occurred_at_ms=receipt.decided_at_ms if receipt else line.at,
        account_id=receipt.account_id if receipt else "",
        key_id=receipt.key_id if receipt else "",
        mode=receipt.mode if receipt else Mode.LIVE,
        product=product,
        service=line.sv,
        route=line.rt,
        endpoint=endpoints.name(product, line.m, line.rt, line.p),
        method=line.m[:MAX_METHOD_LENGTH],
        path=line.p[:MAX_PATH_LENGTH],
        outcome=receipt.outcome if receipt else parse_refusal_note(line.ra) or Outcome.UNATTRIBUTED,
        units=receipt.units if receipt else 0,
        dimensions=dimensions,
        client_ip=line.ip,
        emitter=receipt.emitter if receipt else "",
        call_number=receipt.call_number if receipt else 0,
        flags=(*flags, *unit_flags, *number_flags, *replay_flags),
        bytes_in=numbers["bytes_in"],
        bytes_out=numbers["bytes_out"],
        latency_ms=numbers["latency_ms"],
        gateway_ms=numbers["gateway_ms"],
        upstream_ms=numbers["upstream_ms"],
        status=numbers["status"],
        shipper=shipper,
    )


def find_receipt(line: UsageLine, secrets: tuple[bytes, ...]) -> tuple[Receipt | None, tuple[str, ...]]:
    """Return the receipt that decides, and flags: `bad_receipt` where text stands in for one and is none,
    `lone_receipt` where the answer does not confirm the request's.
    """
    sent = _verify(line.ru, Place.UPSTREAM, secrets) if line.ru else None
    if sent and is_same_call(line.ru, line.ra):
        return sent, ()
    bad = (FLAG_BAD_RECEIPT,) if line.ru and not sent else ()
    if not line.ra:
        return sent, (FLAG_LONE_RECEIPT,) if sent else bad
    if parse_refusal_note(line.ra) is not None:
        return None, (FLAG_BAD_RECEIPT,) if line.ru else ()
    answered = _verify(line.ra, Place.ANSWER, secrets)
    if answered:
        return answered, (FLAG_BAD_RECEIPT,) if line.ru else ()
    return sent, (FLAG_BAD_RECEIPT, FLAG_LONE_RECEIPT) if sent else (FLAG_BAD_RECEIPT,)


def is_same_call(sent: str, answered: str) -> bool:
    """Say whether two receipts say the same but for their MAC."""
    return sent[:-MAC_TEXT_LENGTH] == answered[:-MAC_TEXT_LENGTH]


def is_shaped_like_receipt(text: str) -> bool:
    """Say whether a text has the parts of a receipt, whoever signed it."""
    parts = text.split(".", FIELD_COUNT)
    return len(parts) == FIELD_COUNT and parts[0] == VERSION and len(parts[-1]) == MAC_TEXT_LENGTH


def is_sound(receipt: Receipt) -> bool:
    """Say whether the numbers of a receipt whose MAC holds are such as the gateway writes."""
    return (
        0 <= receipt.sequence <= MAX_SEQUENCE
        and 0 <= receipt.call_number <= MAX_SEQUENCE
        and 0 <= receipt.units <= MAX_UNITS
        and EARLIEST_MS <= receipt.decided_at_ms < LATEST_MS
        and receipt.account_id != ""
    )


def _verify(text: str, place: Place, secrets: tuple[bytes, ...]) -> Receipt | None:
    try:
        receipt = verify_receipt(text, place=place, secrets=secrets)
    except ValueError:  # the MAC held, the fields are of a gateway that we do not understand
        return None
    return receipt if receipt and is_sound(receipt) else None


def judge_dimensions(
    found: Mapping[str, Any], maximums: Mapping[str, int]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return units by dimension: non-negative integers up to the dimension's maximum (10^12 where there is none).

    Anything else is 0, and a flag names the dimension.
    """
    if not found:
        return {}, ()
    units: dict[str, int] = {}
    flags: list[str] = []
    for name, value in sorted(found.items())[:MAX_DIMENSIONS]:
        if not _is_dimension(name):
            flags.append(FLAG_BAD_UNITS)
            continue
        amount = _unit_amount(value, maximums.get(name, MAX_UNITS))
        if amount is None:
            flags.append(f"{FLAG_BAD_UNITS}:{name}")
        units[name] = amount or 0
    if len(found) > MAX_DIMENSIONS:
        flags.append(FLAG_BAD_UNITS)
    return units, tuple(dict.fromkeys(flags))


@lru_cache(maxsize=1024)
def _is_dimension(name: str) -> bool:
    return _DIMENSION.fullmatch(name) is not None


def _unit_amount(value: Any, most: int) -> int | None:
    if isinstance(value, str):
        text = value.strip()
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            return None
        value = int(text)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= min(most, MAX_UNITS):
        return None
    return value


# Event field -> line field and what the store can hold.
NUMBERS = {
    "status": ("st", 0, MAX_STATUS),
    "bytes_in": ("bi", 0, MAX_BYTES),
    "bytes_out": ("bo", 0, MAX_BYTES),
    "latency_ms": ("lt", 0, MAX_LATENCY_MS),
    "gateway_ms": ("lk", 0, MAX_LATENCY_MS),
    "upstream_ms": ("lp", -1, MAX_LATENCY_MS),
}


def judge_numbers(line: UsageLine) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return Kong's figures inside their bounds, and `bad_number` if one had to be moved there."""
    given = {name: getattr(line, field) for name, (field, _, _) in NUMBERS.items()}
    kept = {name: min(max(given[name], low), high) for name, (_, low, high) in NUMBERS.items()}
    return kept, () if kept == given else (FLAG_BAD_NUMBER,)
