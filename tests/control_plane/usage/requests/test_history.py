"""The raw request history: every event once, page by page, and nothing in it that could be a secret."""

from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.foundation.clock import to_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.collect.attribution import attribute_line
from control_plane.usage.collect.lines import UsageLine
from control_plane.usage.model import HourKey
from control_plane.usage.requests.history import event_search
from control_plane.usage.requests.model import EventFilters
from control_plane.usage.store import EventStore, EventStoreConfig, migrate
from control_plane.usage.store.events import hour_parameters, void_parameters
from gateway_contract.outcomes import Outcome

HOUR = timedelta(hours=1)


async def ids(store, noon, **more) -> list[str]:
    arguments = {"account_id": "acc_1", "start": noon - HOUR, "end": noon + HOUR} | more
    return [event.event_id for event in (await event_search(store, **arguments)).items]


class TestEventSearch:
    async def test_pages_newest_first_without_gap_or_repeat(self, gateway, collect, store, noon):
        calls = [*gateway.calls(10), *gateway.calls(10), *gateway.calls(5, at=noon - timedelta(minutes=30))]
        await gateway.ship(calls)
        await gateway.ship(calls)
        await collect()
        found, cursor = [], None
        for _ in range(4):
            page = await event_search(
                store, account_id="acc_1", start=noon - HOUR, end=noon + HOUR, limit=7, cursor=cursor
            )
            found += page.items
            cursor = page.next_cursor
        assert cursor is None
        order = [(event.occurred_at_ms, event.event_id) for event in found]
        assert order == sorted(order, reverse=True)
        assert sorted(event.event_id for event in found) == sorted(call.receipt.event_id for call in calls)

    async def test_gives_back_the_event_as_it_was_attributed(self, gateway, collect, store, noon, secret):
        import msgspec

        from control_plane.usage.collect.endpoints import EndpointNames, Template

        (made,) = gateway.calls(1, tokens=5, status=499)
        await gateway.ship([made])
        await collect()
        (event,) = (await event_search(store, account_id="acc_1", start=noon, end=noon + HOUR)).items
        names = EndpointNames({"weather": [Template("GET", "/weather/v1/current/{city}")]})
        line = msgspec.convert(made.line(), UsageLine)
        assert event.shipper in {"", gateway.shipper}
        assert replace(event, shipper="") == attribute_line(line, secrets=(secret,), endpoints=names)

    async def test_filters(self, gateway, collect, store, noon):
        await gateway.ship(
            [
                *gateway.calls(1),
                *gateway.calls(1, key="key_2", status=404),
                *gateway.calls(1, outcome=Outcome.RATE_LIMITED, status=429),
                *gateway.calls(1, path="/weather/v1/forecast", request_id="d" * 32),
                *gateway.calls(1, account="acc_2"),
            ]
        )
        await collect()
        search = EventFilters
        assert len(await ids(store, noon)) == 4
        assert await ids(store, noon, filters=search(key_id="key_2")) == ["testemitter-2"]
        assert await ids(store, noon, filters=search(outcome="rate_limited")) == ["testemitter-3"]
        assert await ids(store, noon, filters=search(lowest_status=400, highest_status=428)) == ["testemitter-2"]
        assert await ids(store, noon, filters=search(endpoint="GET /weather/v1/forecast")) == ["testemitter-4"]
        assert await ids(store, noon, filters=search(request_id="d" * 32)) == ["testemitter-4"]
        assert await ids(store, noon, filters=search(mode="test")) == []
        assert await ids(store, noon, start=noon, end=noon) == []
        assert await ids(store, noon, account_id="acc_2") == ["testemitter-5"]

    async def test_refuses_a_cursor_that_is_not_its_own(self, store, noon):
        with pytest.raises(ValidationFailedError):
            await event_search(store, account_id="a", start=noon, end=noon + HOUR, cursor="zzz")


class TestEventStore:
    def test_is_made_once(self, clickhouse_dsn):
        config = EventStoreConfig(dsn=clickhouse_dsn)
        first = EventStore.open(config)
        second = EventStore.open(config)
        assert migrate(second._client) == []
        assert first.count_events() == 0
        first.close()
        second.close()

    async def test_reads_only_the_hours_it_is_asked_for(self, gateway, collect, store, noon):
        for number in range(4):
            await gateway.ship(gateway.calls(1, account=f"acc_{number}", at=noon - timedelta(days=number)))
        await collect()
        plan = store._client.query(
            "EXPLAIN indexes = 1 " + store._hour_figures,
            parameters={
                **hour_parameters([HourKey("acc_1", to_ms(noon - timedelta(days=1)))], {}),
                **void_parameters({}),
            },
        )
        text = "\n".join(row[0] for row in plan.result_rows)
        assert "PrimaryKey" in text
        assert "Parts: 1/4" in text
