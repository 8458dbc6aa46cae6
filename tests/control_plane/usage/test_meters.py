"""Declared meters: each aggregation against a plain computation over the same events."""

# ruff: noqa: PLR0917 - fixtures are arguments

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.meters import Aggregation, MeteredEvents, MeterFacts, MeterFilters
from control_plane.catalog.tables import Meter
from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.ids import new_id
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.corrections.tables import UsageVoid
from control_plane.usage.meters.hourly import derive_meters
from control_plane.usage.meters.periods import PeriodsConfig, count_due_periods
from control_plane.usage.meters.tables import MeterHourly, MeterPeriod, MeterPeriodState
from control_plane.usage.operations import touch_hours
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.store import EventStore
from control_plane.usage.store.metered_values import MeteredSpan, metered_values
from control_plane.usage.tables import TouchedHour, UsageHour

Sessions = async_sessionmaker[AsyncSession]
HOUR = timedelta(hours=1)
NOON = datetime.fromisoformat("2026-03-17T12:00:00+00:00")
MARCH, APRIL = NOON.replace(day=1, hour=0), NOON.replace(month=4, day=1, hour=0)
NOW = NOON + timedelta(minutes=90)


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


METERS = [
    a_meter("count"),
    a_meter("count", weights={"GET /a": 3, "GET /b": 1000}),
    a_meter("count", filters={"methods": ("POST",), "lowest_status": 200, "highest_status": 299}),
    a_meter("count", events="reported", filters={"event_types": ("paid",), "properties": {"plan": "gold"}}),
    a_meter("count", events="all", filters={"sources": ("shop",), "endpoints": ("GET /b",)}),
    a_meter("sum", "tokens", weights={"GET /b": 7}),
    a_meter("sum", "tokens", events="all"),
    a_meter("sum", "bytes_in", filters={"endpoints": ("GET /a",)}),
    a_meter("unique", "key_id"),
    a_meter("unique", "client_ip", filters={"highest_status": 399}),
    a_meter("unique", "properties.user", events="reported"),
    a_meter("unique", "properties.user", events="all"),
    a_meter("max", "upstream_ms"),
    a_meter("max", "tokens", events="all"),
    a_meter("latest", "tokens", events="all"),
    a_meter("latest", "seats", events="reported", filters={"properties": {"plan": "gold"}}),
]

calls = st.builds(
    Event,
    id=st.integers(0, 25).map(lambda number: f"call-{number}"),
    at=st.integers(0, 3 * 3_600_000 - 1).map(lambda ms: NOON - HOUR + timedelta(milliseconds=ms)),
    mode=st.sampled_from(["live", "live", "live", "test"]),
    outcome=st.sampled_from(["served", "served", "served", "rate_limited"]),
    status=st.sampled_from([200, 201, 304, 404, 499, 500, 503]),
    endpoint=st.sampled_from(["GET /a", "GET /b", "other"]),
    method=st.sampled_from(["GET", "POST"]),
    key=st.sampled_from(["key_1", "key_2", "key_3"]),
    ip=st.sampled_from(["203.0.113.1", "203.0.113.2", ""]),
    bytes_in=st.integers(0, 10**6),
    upstream_ms=st.integers(-1, 50),
    dimensions=st.dictionaries(st.sampled_from(["tokens", "seats"]), st.integers(0, 10**12)),
)
reports = st.builds(
    Event,
    id=st.integers(0, 25).map(lambda number: f"app-{number}"),
    at=st.integers(0, 3 * 3_600_000 - 1).map(lambda ms: NOON - HOUR + timedelta(milliseconds=ms)),
    mode=st.sampled_from(["live", "live", "test"]),
    outcome=st.just("reported"),
    status=st.just(0),
    key=st.just(""),
    ip=st.just(""),
    endpoint=st.just(""),
    method=st.just(""),
    path=st.just(""),
    type=st.sampled_from(["paid", "opened"]),
    source=st.sampled_from(["shop", "desk"]),
    dimensions=st.dictionaries(st.sampled_from(["tokens", "seats"]), st.integers(0, 1000)),
    properties=st.dictionaries(
        st.sampled_from(["user", "plan"]), st.sampled_from(["gold", "ann", "bob", ""]), max_size=2
    ),
)


@pytest.fixture
def fresh(store: EventStore) -> Callable[[], EventStore]:
    """Empties the store: hypothesis plays many histories in one test."""

    def empty() -> EventStore:
        store._client.command("TRUNCATE TABLE usage_events")
        return store

    return empty


class TestValues:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(events=st.lists(calls | reports, max_size=30, unique_by=lambda event: event.id), below=st.just(500))
    def test_are_those_of_a_plain_computation(self, events: list[Event], below: int, fresh) -> None:
        store = fresh()
        store.insert(columns(events))
        store.insert(columns(events[::2]))  # delivered twice
        ends = [NOON - HOUR, NOON - timedelta(minutes=13), NOON, NOON + 2 * HOUR]
        spans = [
            MeteredSpan(
                account_id="acc_1", product="weather", start_ms=to_ms(start), end_ms=to_ms(end), below_status=below
            )
            for start, end in zip(ends, ends[1:], strict=False)
        ]
        groups = [[spans[0]], [spans[1]], [spans[2]], [spans[0], spans[2]]]
        found = {
            (group, meter): value.value
            for group, meter, value in metered_values(store, groups=groups, meters=METERS)
        }
        for group, parts in enumerate(groups):
            within = [
                event for event in events if any(part.start_ms <= to_ms(event.at) < part.end_ms for part in parts)
            ]
            for number, meter in enumerate(METERS):
                assert found.get((group, number)) == plain_value(meter, within, below), meter

    def test_know_other_accounts_and_products_apart(self, store) -> None:
        store.insert(
            columns([Event("one"), Event("two", account="acc_2"), Event("three", product="maps"), Event("four")])
        )
        spans = [_span("acc_1"), _span("acc_2"), _span("acc_1", product="maps"), _span("acc_3")]
        meters = [a_meter("count"), a_meter("count", api_product="maps")]
        found = {
            (group, meter): value.value
            for group, meter, value in metered_values(store, groups=[[span] for span in spans], meters=meters)
        }
        assert found == {(0, 0): 2, (1, 0): 1, (2, 1): 1}

    def test_follow_the_statuses_that_are_billed_in_the_span(self, store) -> None:
        store.insert(columns([Event("one"), Event("two", status=404), Event("three", status=500)]))
        for below, expected in ((400, 1), (500, 2), (600, 3)):
            ((_, _, value),) = metered_values(
                store, groups=[[replace(_span("acc_1"), below_status=below)]], meters=[a_meter("count")]
            )
            assert value.value == expected

    def test_leave_out_what_was_voided_or_repeated_by_the_upstream(self, store) -> None:
        events = [
            Event("one"),
            Event("two"),
            Event("three", flags=("replayed",)),
            Event("four", flags=("replayed",)),
        ]
        store.insert(columns(events))
        ((_, _, value),) = metered_values(
            store,
            groups=[[_span("acc_1")]],
            meters=[a_meter("count")],
            billed_replays=[("acc_1", "four")],
            left_out=[("acc_1", "one")],
        )
        assert (value.value, value.latest_event_id) == (2, "two")

    def test_of_latest_at_one_moment_is_the_greater_id(self, store) -> None:
        store.insert(columns([Event("b", dimensions={"tokens": 1}), Event("a", dimensions={"tokens": 2})]))
        ((_, _, value),) = metered_values(store, groups=[[_span("acc_1")]], meters=[a_meter("latest", "tokens")])
        assert (value.value, value.latest_event_id) == (1, "b")

    def test_do_not_overflow(self, store) -> None:
        most = 10**12
        store.insert(columns([Event(f"call-{number}", dimensions={"tokens": most}) for number in range(50)]))
        meter = a_meter("sum", "tokens", weights={"GET /a": 1_000_000})
        ((_, _, value),) = metered_values(store, groups=[[_span("acc_1")]], meters=[meter])
        assert value.value == 50 * most * 1_000_000  # more than 64 bits hold


def _span(account: str, *, product: str = "weather") -> MeteredSpan:
    return MeteredSpan(
        account_id=account, product=product, start_ms=to_ms(NOON), end_ms=to_ms(NOON + HOUR), below_status=500
    )
