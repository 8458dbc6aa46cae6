"""Reads what meters come to from stored events. Blocking: the caller runs it in a thread."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from control_plane.catalog.meters import (
    MAX_STATUS,
    MEASURED_VALUES,
    PROPERTY,
    Aggregation,
    MeteredEvents,
    MeterFacts,
)
from control_plane.usage.store.events import EventStore
from gateway_contract.counters import HOUR_MS

SPANS_PER_QUERY = 1000
_HOUR_SECONDS = HOUR_MS // 1000
_STATEMENT = Template(
    (resources.files("control_plane.usage.store") / "metered_values.sql").read_text(encoding="utf-8")
)
# The parts of the statement, all there are.
_RESULTS = {
    Aggregation.COUNT: "sum(toUInt128(weight))",
    Aggregation.SUM: "sum(toUInt128(value) * weight)",
    Aggregation.UNIQUE: "uniqExact(value)",
    Aggregation.MAX: "max(value)",
    Aggregation.LATEST: "argMax(value, (at_ms, event_id))",
}
_LATEST = "argMax((at_ms, event_id), (at_ms, event_id))"
_NO_LATEST = "(0, '')"
_VALUES = {
    "": "1",
    "dimension": "dimensions[{value_name:String}]",
    "property": "properties[{value_name:String}]",
    "upstream_ms": "toUInt64(greatest(upstream_ms, 0))",
    "key_id": "toString(key_id)",
    "endpoint": "toString(endpoint)",
    **{name: name for name in ("bytes_in", "bytes_out", "units", "client_ip", "path", "gateway_ms", "latency_ms")},
}
# what has no such value does not count
_HAS_VALUE = {
    "": "1",
    "dimension": "mapContains(dimensions, {value_name:String})",
    "property": "properties[{value_name:String}] != ''",
    "upstream_ms": "upstream_ms >= 0 AND outcome = 'served'",
    **{name: f"{name} != ''" for name in ("key_id", "client_ip", "endpoint", "path")},
}
_OF_CALLS = "outcome = 'served'"
_WEIGHT = (
    "if(outcome = 'served', transform(toString(endpoint), {weight_endpoints:Array(String)},"
    " {weights:Array(UInt32)}, toUInt32(1)), toUInt32(1))"
)
_FILTERS = {
    "endpoints": "(outcome != 'served' OR has({endpoints:Array(String)}, endpoint))",
    "methods": "(outcome != 'served' OR has({methods:Array(String)}, method))",
    "statuses": "(outcome != 'served' OR status BETWEEN {lowest_status:UInt16} AND {highest_status:UInt16})",
    "event_types": "(outcome = 'served' OR has({event_types:Array(String)}, event_type))",
    "sources": "(outcome = 'served' OR has({sources:Array(String)}, source))",
    "properties": "(outcome = 'served' OR arrayAll((name, wanted) -> properties[name] = wanted,"
    " {property_names:Array(String)}, {property_values:Array(String)}))",
}
_OUTCOMES = {
    MeteredEvents.CALLS: ["served"],
    MeteredEvents.REPORTED: ["reported"],
    MeteredEvents.ALL: ["served", "reported"],
}
_NOT_REPEATED = "NOT has(flags, 'replayed')"
_BILLED_REPLAYS = "has({billed_replays:Array(String)}, concat(account_id, ' ', event_id))"
_LEFT_OUT = "NOT has({left_out:Array(String)}, concat(account_id, ' ', event_id))"


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
    """What a meter comes to, and of how many events. `latest_*`: of latest meters, which event it is of."""

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
        statement = _statement(meter, replays=bool(names["billed_replays"]), left_out=bool(names["left_out"]))
        fixed = {**_parameters(meter), **names}
        spans = [
            (place, span)
            for place, group in enumerate(groups)
            for span in group
            if span.product == meter.api_product
        ]
        for some in _batches(spans):
            for group, events, value, (at_ms, event_id) in store.query(statement, {**_spans(some), **fixed}):
                found = MeteredValue(value=int(value), events=events, latest_at_ms=at_ms, latest_event_id=event_id)
                yield group, number, found


def _batches(spans: Sequence[tuple[int, MeteredSpan]]) -> Iterator[Sequence[tuple[int, MeteredSpan]]]:
    """Cut spans into queries, never within a group."""
    start = 0
    while start < len(spans):
        end = min(start + SPANS_PER_QUERY, len(spans))
        while end < len(spans) and spans[end][0] == spans[end - 1][0]:
            end += 1
        yield spans[start:end]
        start = end


def _statement(meter: MeterFacts, *, replays: bool, left_out: bool) -> str:
    """Return the statement with the parts that this meter needs."""
    kind, _ = _kind(meter)
    filters = meter.filters
    conditions = [_HAS_VALUE.get(kind, _OF_CALLS), f"({_NOT_REPEATED} OR {_BILLED_REPLAYS})"]
    if not replays:
        conditions[-1] = _NOT_REPEATED
    if left_out:
        conditions.append(_LEFT_OUT)
    conditions += [_FILTERS[name] for name in _FILTERS if getattr(filters, name, ())]
    if (filters.lowest_status, filters.highest_status) != (0, MAX_STATUS):
        conditions.append(_FILTERS["statuses"])
    is_latest = meter.aggregation is Aggregation.LATEST
    return _STATEMENT.substitute(
        result=_RESULTS[meter.aggregation],
        latest=_LATEST if is_latest else _NO_LATEST,
        value=_VALUES[kind],
        weight=_WEIGHT if meter.weights else "toUInt32(1)",
        is_counted=" AND ".join(conditions),
    )


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
        "first_hour": min(span.start_ms for _, span in spans) // HOUR_MS * _HOUR_SECONDS,
        "last_hour": max(span.end_ms for _, span in spans) // HOUR_MS * _HOUR_SECONDS,
    }


def _parameters(meter: MeterFacts) -> dict[str, Any]:
    _, name = _kind(meter)
    filters = meter.filters
    return {
        "outcomes": _OUTCOMES[meter.events],
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
