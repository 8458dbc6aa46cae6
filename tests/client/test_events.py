"""Whatever the client takes, the server takes; what it refuses names the reason."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.usage.ingest import cloud_events
from control_plane.usage.ingest.cloud_events import read_event
from control_plane.usage.ingest.model import ReportedEvent
from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode
from kong_monetize_client import EventError, events
from kong_monetize_client.events import encode_event, new_id
from kong_monetize_client.reports import Reports

NOW = datetime(2026, 11, 23, 9, 0, 0, 1000, tzinfo=UTC)
GIVEN = {"event_id": "1", "source": "/shop", "subject": "acc_1", "time": NOW}


def encode(event_type: str = "sold", **changes: Any) -> bytes:
    return encode_event(event_type, **(GIVEN | changes))


texts = st.text(max_size=280)
near = st.text("ab_.-9A é\n\x7f", max_size=60)


class TestEncoding:
    def test_says_what_was_reported(self):
        line = encode(
            time=datetime(2026, 11, 23, 10, 0, tzinfo=timezone(timedelta(hours=1))),
            units={"transactions": 1},
            properties={"country": "NO"},
            product="weather",
            mode="test",
            endpoint="checkout",
        )
        assert json.loads(line) == {
            "specversion": "1.0",
            "id": "1",
            "source": "/shop",
            "type": "sold",
            "subject": "acc_1",
            "time": "2026-11-23T09:00:00.000Z",
            "data": {
                "product": "weather",
                "mode": "test",
                "endpoint": "checkout",
                "units": {"transactions": 1},
                "properties": {"country": "NO"},
            },
        }

    @given(
        event_type=texts,
        event_id=texts,
        source=texts,
        subject=texts,
        units=st.dictionaries(near, st.integers() | st.booleans() | st.floats(), max_size=20),
        properties=st.dictionaries(near, texts, max_size=40),
        product=st.none() | near,
        mode=st.none() | st.sampled_from(["live", "test", "x"]),
        endpoint=st.none() | texts,
    )
    def test_takes_nothing_that_the_server_refuses(self, event_type: str, **given: Any):
        try:
            line = encode(event_type, **given)
        except EventError:
            return
        assert isinstance(read_event(line), ReportedEvent)
        assert b"\n" not in line

    def test_reported_twice_says_the_same_to_the_server_unless_its_time_was_given(self):
        def said(**changes: Any) -> bytes:
            event = read_event(encode(**changes))
            assert isinstance(event, ReportedEvent)
            assert event.at_ms is not None
            return event.content_hash

        later = NOW + timedelta(hours=2)
        assert said(timed_by_client=True) == said(time=later, timed_by_client=True)
        assert said() != said(time=later)
        assert said(timed_by_client=True) != said(time=later, timed_by_client=True, units={"transactions": 2})

    def test_whose_time_was_not_given_says_so(self):
        reports = Reports("/shop")
        _, now = reports.encode("sold", subject="acc_1")
        _, then = reports.encode("sold", subject="acc_1", time=NOW)
        assert json.loads(now)["timedby"] == "client"
        assert "timedby" not in json.loads(then)

    def test_bounds_are_the_servers(self):
        for name in (
            "MAX_ID_LENGTH", "MAX_TYPE_LENGTH", "MAX_SUBJECT_LENGTH", "MAX_ENDPOINT_LENGTH", "MAX_UNITS",
            "MAX_DIMENSIONS", "MAX_PROPERTIES", "MAX_PROPERTY_LENGTH",
        ):  # fmt: skip
            assert getattr(events, name) == getattr(cloud_events, name)
        assert events.RESERVED_UNITS == cloud_events.BUILT_IN_METERS

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"subject": ""}, "subject"),
            ({"subject": None}, "subject"),
            ({"time": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the point
            ({"time": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, "UTC"),
            ({"units": {"transactions": 1.5}}, "whole number"),
            ({"units": {"transactions": True}}, "whole number"),
            ({"units": {"transactions": -1}}, "whole number"),
            ({"units": {"requests": 1}}, "requests"),
            ({"units": {"Transactions": 1}}, "unit"),
            ({"properties": {"a": 1}}, "property a"),
            ({"properties": {"a b": ""}}, "property"),
            ({"product": "No Code"}, "product"),
            ({"mode": "production"}, "mode"),
            ({"endpoint": "a\nb"}, "control"),
            ({"properties": {"a": generate_api_key(Mode.TEST)}}, "API key"),
            ({"event_id": "kmt_" + "x" * 43}, "token"),
        ],
    )
    def test_refuses_with_a_reason(self, changes: dict[str, Any], word: str):
        with pytest.raises(EventError) as refused:
            encode(**changes)
        assert word in str(refused.value)
        assert "km_" not in str(refused.value)


class TestIds:
    def test_sort_by_time_and_never_meet(self):
        ids = [new_id(NOW + timedelta(milliseconds=n)) for n in range(100)]
        assert ids == sorted(ids)
        assert len({new_id(NOW) for _ in range(1000)}) == 1000
        assert {len(found) for found in ids} == {26}
