"""Usage events in short, and what a person would count of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from control_plane.catalog.meters import Aggregation, MeteredEvents, MeterFacts, MeterFilters
from control_plane.foundation.clock import to_ms
from control_plane.usage.collect.columns import EventColumns

NOON = datetime.fromisoformat("2026-03-17T12:00:00+00:00")


@dataclass(frozen=True)
class Event:
    """A usage event in short."""

    id: str
    at: datetime = NOON
    account: str = "acc_1"
    product: str = "weather"
    mode: str = "live"
    outcome: str = "served"
    status: int = 200
    endpoint: str = "GET /a"
    method: str = "GET"
    key: str = "key_1"
    ip: str = "203.0.113.1"
    path: str = "/a"
    bytes_in: int = 100
    upstream_ms: int = 5
    type: str = ""
    source: str = ""
    dimensions: dict[str, int] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    request_id: str = ""


def columns(events: Sequence[Event]) -> EventColumns:
    """Return events as the store takes them."""
    of = {
        "event_id": [event.id for event in events],
        "request_id": [event.request_id or event.id for event in events],
        "account_id": [event.account for event in events],
        "key_id": [event.key for event in events],
        "occurred_at": [to_ms(event.at) for event in events],
        "mode": [event.mode for event in events],
        "product": [event.product for event in events],
        "endpoint": [event.endpoint for event in events],
        "method": [event.method for event in events],
        "path": [event.path for event in events],
        "status": [event.status for event in events],
        "outcome": [event.outcome for event in events],
        "units": [1] * len(events),
        "dimensions": [event.dimensions for event in events],
        "bytes_in": [event.bytes_in for event in events],
        "upstream_ms": [event.upstream_ms for event in events],
        "client_ip": [event.ip for event in events],
        "flags": [event.flags for event in events],
        "ingested_at": [0] * len(events),
        "source": [event.source for event in events],
        "event_type": [event.type for event in events],
        "properties": [event.properties for event in events],
    }
    return EventColumns(columns=of)


def a_meter(aggregation: str, value: str | None = None, **fields: Any) -> MeterFacts:
    filters = MeterFilters(**fields.pop("filters", {}))
    facts = {"code": "meter", "name": "Meter", "api_product": "weather", "filters": filters, **fields}
    facts["events"] = MeteredEvents(facts.get("events", "calls"))
    return MeterFacts(aggregation=Aggregation(aggregation), value=value, **facts)


def counts(meter: MeterFacts, event: Event, below: int = 500) -> bool:
    """Say whether a meter looks at an event, the way a person would."""
    filters, is_call = meter.filters, event.outcome == "served"
    if event.mode != "live" or event.product != meter.api_product or event.flags:
        return False
    if is_call:
        return (
            meter.events != "reported"
            and event.status < below
            and filters.lowest_status <= event.status <= filters.highest_status
            and (not filters.endpoints or event.endpoint in filters.endpoints)
            and (not filters.methods or event.method in filters.methods)
        )
    return (
        event.outcome == "reported"
        and meter.events != "calls"
        and (not filters.event_types or event.type in filters.event_types)
        and (not filters.sources or event.source in filters.sources)
        and all(event.properties.get(name) == text for name, text in filters.properties.items())
    )


def plain_value(meter: MeterFacts, events: Sequence[Event], below: int = 500) -> int | None:
    """Return what a meter comes to over these events, each given once; None where nothing counts."""
    found = sorted((event for event in events if counts(meter, event, below)), key=lambda one: (one.at, one.id))
    values = [(event, _plain(meter, event)) for event in found]
    values = [(event, value) for event, value in values if value not in {None, ""}]
    if not values:
        return None
    if meter.aggregation == "unique":
        return len({value for _, value in values})
    if meter.aggregation == "max":
        return max(value for _, value in values)
    if meter.aggregation == "latest":
        return values[-1][1]
    weighted = (
        value * (meter.weights.get(event.endpoint, 1) if event.outcome == "served" else 1)
        for event, value in values
    )
    return sum(weighted)


def _plain(meter: MeterFacts, event: Event) -> Any:
    is_call, value = event.outcome == "served", meter.value
    if value is None:
        return 1
    if meter.aggregation == "unique":
        of = {"key_id": event.key, "client_ip": event.ip, "endpoint": event.endpoint, "path": event.path}
        return event.properties.get(value.removeprefix("properties.")) if "." in value else of[value]
    if value == "bytes_in":
        return event.bytes_in if is_call else None
    if value == "upstream_ms":
        return event.upstream_ms if is_call and event.upstream_ms >= 0 else None
    return event.dimensions.get(value)
