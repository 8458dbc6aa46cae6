"""Declared meters: each aggregation against a plain computation over the same events."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.foundation.clock import to_ms
from control_plane.usage.store import EventStore
from control_plane.usage.store.metered_values import MeteredSpan, metered_values
from tests.control_plane.usage.metered import NOON, Event, a_meter, columns, plain_value

HOUR = timedelta(hours=1)
MARCH, APRIL = NOON.replace(day=1, hour=0), NOON.replace(month=4, day=1, hour=0)
NOW = NOON + timedelta(minutes=90)


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
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
            for start, end in itertools.pairwise(ends)
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
        assert (value.value, value.events) == (2, 2)

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
