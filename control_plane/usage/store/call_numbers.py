"""Reads which call numbers are stored, and which plugin processes were heard. Blocking: run it in a thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from control_plane.usage.model import HourKey
from control_plane.usage.store.events import EventStore, hour_parameters
from gateway_contract.counters import HOUR_MS

BUCKET_SIZE = 65_536
_PACKAGE = resources.files("control_plane.usage.store")
_CALL_NUMBERS = (_PACKAGE / "call_numbers.sql").read_text(encoding="utf-8")
_STORED_NUMBERS = (_PACKAGE / "stored_numbers.sql").read_text(encoding="utf-8")
_EMITTERS = (_PACKAGE / "emitters.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class NumberBucket:
    """Calls of one hour whose numbers lie in one bucket: numbers bucket * 65536 + 1 up to (bucket + 1) * 65536.

    `bucket` is -1 for served calls without a number. `part` as in `HourFigures`; `numbers` are distinct ones.
    """

    hour: HourKey
    product: str
    mode: str
    part: int
    bucket: int
    calls: int
    numbers: int
    sum_of_numbers: int


@dataclass(frozen=True, slots=True)
class HeardEmitter:
    """A plugin process between two moments. `holes`: its decisions between first and last that are not stored."""

    name: str
    shipper: str
    first_ms: int
    last_ms: int
    holes: int


def call_numbers(
    store: EventStore, hours: Sequence[HourKey], *, boundaries: Mapping[str, Sequence[int]]
) -> list[NumberBucket]:
    """Return how many numbered calls of these hours are stored; `boundaries` as in `EventStore.hour_figures`."""
    if not hours:
        return []
    rows = store.query(_CALL_NUMBERS, hour_parameters(hours, boundaries))
    return [NumberBucket(HourKey(account_id, seconds * 1000), *rest) for account_id, seconds, *rest in rows]


def stored_numbers(
    store: EventStore, hour: HourKey, *, product: str, mode: str, first: int, last: int
) -> list[tuple[int, int]]:
    """Return (number, moment in ms) of the stored calls `first` to `last`, of this hour and those beside it."""
    seconds = hour.hour_ms // 1000
    rows = store.query(
        _STORED_NUMBERS,
        {
            "account_id": hour.account_id,
            "first_hour": seconds - HOUR_MS // 1000,
            "last_hour": seconds + HOUR_MS // 1000,
            "product": product,
            "mode": mode,
            "first_number": max(first, 1),
            "last_number": last,
        },
    )
    return [(number, at_ms) for number, at_ms in rows]


def emitters_heard(store: EventStore, *, start_ms: int, end_ms: int) -> list[HeardEmitter]:
    """Return the plugin processes of which any decision in [start_ms, end_ms) is stored, of whichever account."""
    return [HeardEmitter(*row) for row in store.query(_EMITTERS, {"start_ms": start_ms, "end_ms": end_ms})]
