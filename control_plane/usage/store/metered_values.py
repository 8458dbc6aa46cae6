"""Reads what meters come to from stored events. Blocking: the caller runs it in a thread."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from control_plane.catalog.meters import MEASURED_VALUES, PROPERTY, Aggregation, MeterFacts
from control_plane.usage.store.events import EventStore

SPANS_PER_QUERY = 1000
_STATEMENT = (resources.files("control_plane.usage.store") / "metered_values.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredSpan:
    """[start_ms, end_ms) of an account's usage of an API product.

    Calls with a status from `below_status` on are not billed.
    """

    account_id: str
    product: str
    start_ms: int
    end_ms: int
    below_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredValue:
    """What a meter comes to, and of how many events. `latest_*`: of latest meters, the event by (time, id)."""

    value: int
    events: int
    latest_at_ms: int
    latest_event_id: str


def metered_values(
    store: EventStore,
    *,
    groups: Sequence[Sequence[MeteredSpan]],
    meters: Sequence[MeterFacts],
    billed_replays: Collection[tuple[str, str]] = (),
    left_out: Collection[tuple[str, str]] = (),
) -> Iterator[tuple[int, int, MeteredValue]]:
    """Give (place of the group, place of the meter, value), where anything counted; in no order.

    Spans of a group are looked at together, as one: that is what a unique meter needs. They must not overlap.
    `billed_replays` and `left_out` name events as (account, event id): see `metered_values.sql`.
    """
    names = {"billed_replays": _names(billed_replays), "left_out": _names(left_out)}
    for number, meter in enumerate(meters):
        fixed = {**_parameters(meter), **names}
        spans = [
            (place, span)
            for place, group in enumerate(groups)
            for span in group
            if span.product == meter.api_product
        ]
        for some in _batches(spans):
            for group, *figures in store.query(_STATEMENT, {**_spans(some), **fixed}):
                yield group, number, _value(meter.aggregation, figures)


def _batches(spans: Sequence[tuple[int, MeteredSpan]]) -> Iterator[Sequence[tuple[int, MeteredSpan]]]:
    """Cut spans into queries, never within a group."""
    start = 0
    while start < len(spans):
        end = min(start + SPANS_PER_QUERY, len(spans))
        while end < len(spans) and spans[end][0] == spans[end - 1][0]:
            end += 1
        yield spans[start:end]
        start = end


def _value(aggregation: Aggregation, figures: Sequence[Any]) -> MeteredValue:
    events, total, greatest, (number, at_ms, event_id), different = figures
    value = {
        Aggregation.UNIQUE: different,
        Aggregation.MAX: greatest,
        Aggregation.LATEST: number,
    }.get(aggregation, total)
    return MeteredValue(value=int(value), events=events, latest_at_ms=at_ms, latest_event_id=event_id)


def _names(events: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{account_id} {event_id}" for account_id, event_id in events]


def _spans(spans: Sequence[tuple[int, MeteredSpan]]) -> dict[str, Any]:
    return {
        "s_groups": [group for group, _ in spans],
        "s_accounts": [span.account_id for _, span in spans],
        "s_products": [span.product for _, span in spans],
        "s_starts_ms": [span.start_ms for _, span in spans],
        "s_ends_ms": [span.end_ms for _, span in spans],
        "s_below": [span.below_status for _, span in spans],
    }


def _parameters(meter: MeterFacts) -> dict[str, Any]:
    kind, name = _kind(meter)
    filters = meter.filters
    return {
        "aggregation": meter.aggregation.value,
        "events": meter.events.value,
        "value_kind": kind,
        "value_name": name,
        "endpoints": list(filters.endpoints),
        "methods": list(filters.methods),
        "lowest_status": filters.lowest_status,
        "highest_status": filters.highest_status,
        "event_types": list(filters.event_types),
        "sources": list(filters.sources),
        "property_names": list(filters.properties),
        "property_values": list(filters.properties.values()),
        "weight_endpoints": list(meter.weights),
        "weights": list(meter.weights.values()),
    }


def _kind(meter: MeterFacts) -> tuple[str, str]:
    """Return what kind of value a meter looks at, and its name where the kind alone does not say which."""
    value = meter.value
    if value is None:
        return "", ""
    if meter.aggregation is Aggregation.UNIQUE:
        return ("property", value.removeprefix(PROPERTY)) if value.startswith(PROPERTY) else (value, "")
    return (value, "") if value in MEASURED_VALUES else ("dimension", value)
