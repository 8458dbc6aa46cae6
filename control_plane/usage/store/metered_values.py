"""Reads what meters come to from stored events. Blocking: the caller runs it in a thread."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from control_plane.catalog.meters import MEASURED_VALUES, PROPERTY, Aggregation, MeterFacts
from control_plane.usage.store.events import EventStore

GROUPS_PER_QUERY = 500
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
    """What a meter comes to, and of how many events. `latest_*`: the last of them, by (time, id)."""

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
    if not meters:
        return
    fixed = {**_meters(meters), "billed_replays": _names(billed_replays), "left_out": _names(left_out)}
    for first in range(0, len(groups), GROUPS_PER_QUERY):
        spans = [
            (place, span)
            for place, group in enumerate(groups[first : first + GROUPS_PER_QUERY], start=first)
            for span in group
        ]
        if spans:
            for group, meter, *figures in store.query(_STATEMENT, {**_spans(spans), **fixed}):
                yield group, meter, _value(meters[meter].aggregation, figures)


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


def _meters(meters: Sequence[MeterFacts]) -> dict[str, Any]:
    kinds, names = zip(*(_kind(meter) for meter in meters), strict=True)
    filters = [meter.filters for meter in meters]
    return {
        "m_products": [meter.api_product for meter in meters],
        "m_events": [meter.events.value for meter in meters],
        "m_value_kinds": list(kinds),
        "m_value_names": list(names),
        "m_endpoints": [list(one.endpoints) for one in filters],
        "m_methods": [list(one.methods) for one in filters],
        "m_lowest": [one.lowest_status for one in filters],
        "m_highest": [one.highest_status for one in filters],
        "m_event_types": [list(one.event_types) for one in filters],
        "m_sources": [list(one.sources) for one in filters],
        "m_property_names": [list(one.properties) for one in filters],
        "m_property_values": [list(one.properties.values()) for one in filters],
        "m_weight_endpoints": [list(meter.weights) for meter in meters],
        "m_weights": [list(meter.weights.values()) for meter in meters],
        "m_is_unique": [int(meter.aggregation is Aggregation.UNIQUE) for meter in meters],
    }


def _kind(meter: MeterFacts) -> tuple[str, str]:
    """Return what kind of value a meter looks at, and its name where the kind alone does not say which."""
    value = meter.value
    if value is None:
        return "", ""
    if meter.aggregation is Aggregation.UNIQUE:
        return ("property", value.removeprefix(PROPERTY)) if value.startswith(PROPERTY) else (value, "")
    return (value, "") if value in MEASURED_VALUES else ("dimension", value)
