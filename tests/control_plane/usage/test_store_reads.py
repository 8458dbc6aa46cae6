"""What queries read of the store, that an index changes no answer, and that Distributed tables do."""

import hashlib
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from clickhouse_connect.driver.client import Client

from control_plane.foundation.clock import to_ms
from control_plane.usage.model import HourKey
from control_plane.usage.requests.model import EventFilters, EventSpan
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.store.client import cluster_settings, connect, migration_steps
from control_plane.usage.store.event_reads import search_events
from control_plane.usage.store.events import hour_parameters, void_parameters
from control_plane.usage.store.layout import SHARDED_BY, Layout
from control_plane.usage.store.replay_calls import replay_calls
from gateway_contract.counters import HOUR_MS

EVENTS = 120_000
# ten accounts, twelve hours, a thousand events in each hour of an account
MANY = """
INSERT INTO usage_events
    (event_id, request_id, account_id, key_id, occurred_at, endpoint, status, outcome, mode, units)
SELECT
    'e' || toString(number), lower(hex(MD5(toString(number)))), 'acc_' || toString(number % 10),
    'key_' || toString(intDiv(number, 20000)),
    fromUnixTimestamp64Milli({first_ms:Int64} + intDiv(number, 10000) * 3600000 + number % 3000000, 'UTC'),
    'GET /' || toString(number % 4), if(number = 77777, 503, 200), 'served', 'live', 1
FROM numbers({events:UInt32})
"""


@pytest.fixture
def many(store: EventStore, noon) -> EventStore:
    store._client.command(MANY, parameters={"first_ms": to_ms(noon) - 12 * HOUR_MS, "events": EVENTS})
    store._client.command("OPTIMIZE TABLE usage_events FINAL")
    return store


def granules(store: EventStore, statement: str, parameters: dict[str, object]) -> list[tuple[str, int, int]]:
    """Return (index, granules left, granules before) in the order in which the indexes are asked."""
    plan = store._client.query("EXPLAIN indexes = 1 " + statement, parameters=parameters)
    text = "\n".join(row[0] for row in plan.result_rows)
    found = re.findall(
        r"(PrimaryKey\n|Name: \w+|PrimaryKeyExpand)(?:(?!Granules).)*Granules: (\d+)/(\d+)", text, re.DOTALL
    )
    return [(name.strip(), int(left), int(before)) for name, left, before in found]


class TestReading:
    def test_an_hour_reads_only_its_granules(self, many: EventStore, noon) -> None:
        hour = HourKey("acc_3", to_ms(noon) - 5 * HOUR_MS)
        parameters = {**hour_parameters([hour], {}), **void_parameters({})}
        (name, left, before), *_ = granules(many, many._hour_figures, parameters)
        assert name == "PrimaryKey"
        assert before >= EVENTS // 8192
        assert left <= 2
        (figures,) = {sum(row.calls for row in many.hour_figures([hour]))}
        assert figures == 1000

    def test_a_search_reads_the_granules_that_may_have_it(self, many: EventStore, noon, monkeypatch) -> None:
        asked = []
        query = many.query
        monkeypatch.setattr(
            many, "query", lambda text, values: asked.append((text, values)) or query(text, values)
        )
        span = EventSpan(account_id=None, start=noon - timedelta(days=90), end=noon + timedelta(days=1))
        for filters, index, count in [
            (EventFilters(request_id="b026324c6904b2a9cb4b88d6d61c81d1"), "by_request", 0),
            (EventFilters(key_id="key_none"), "by_key", 0),
            (EventFilters(endpoint="GET /none"), "by_endpoint", 0),
            (EventFilters(lowest_status=500), "by_status", 1),
        ]:
            assert len(search_events(many, span, filters, limit=10)) == count
            found = granules(many, *asked.pop())
            assert f"Name: {index}" in [name for name, _, _ in found]
            # each granule is read with those that may hold other versions of its events
            assert found[-1][1] <= 4 * count

    @pytest.mark.parametrize("account_id", [None, "acc_0"])
    def test_named_events_are_read_at_their_place(self, many: EventStore, noon, monkeypatch, account_id) -> None:
        asked = []
        query = many.query
        monkeypatch.setattr(
            many, "query", lambda text, values: asked.append((text, values)) or query(text, values)
        )
        span = EventSpan(account_id=account_id, start=noon - timedelta(days=90), end=noon + timedelta(days=1))
        one, other = (hashlib.md5(number.encode()).hexdigest() for number in ("500", "110500"))
        for filters, events in [
            (EventFilters(request_id=one), {"e500"}),
            (EventFilters(request_ids=(one, other)), {"e500", "e110500"}),
            (EventFilters(event_id="e500"), {"e500"}),
            (EventFilters(event_ids=("e500", "e110500")), {"e500", "e110500"}),
            (EventFilters(event_id="e500", request_id=other), set()),
        ]:
            found = search_events(many, span, filters, limit=10)
            assert {event.event_id for event in found} == events
            name, left, _ = granules(many, *asked.pop())[0]
            assert name == "PrimaryKey"
            assert left <= len(events)

    def test_an_index_never_brings_up_a_version_that_was_replaced(self, store: EventStore, noon) -> None:
        """Each version is in a part of its own: by an index alone the one that stays would not be read."""
        store._client.command("SYSTEM STOP MERGES usage_events")
        names = ["event_id", "request_id", "account_id", "key_id", "occurred_at"]
        names += ["endpoint", "status", "outcome", "mode", "flags"]
        for word, status, flags in [("lost", 500, ["lone_receipt"]), ("kept", 200, [])]:
            row = ["e1", word, "acc", f"key_{word}", noon, f"GET /{word}", status, "served", "live", flags]
            store._client.insert("usage_events", [row], column_names=names)
        span = EventSpan(account_id="acc", start=noon, end=noon + timedelta(seconds=1))

        def found(**filters: object) -> list[str]:
            return [event.request_id for event in search_events(store, span, EventFilters(**filters), limit=10)]

        assert found() == ["kept"]
        assert found(request_id="lost") == found(key_id="key_lost") == found(endpoint="GET /lost") == []
        assert found(lowest_status=500) == []
        assert found(request_id="kept") == found(key_id="key_kept") == found(lowest_status=200) == ["kept"]


class TestThroughDistributed:
    """The statements on the tables of a cluster, of one shard with one replica: this process."""

    @pytest.fixture
    def store(self, empty_clickhouse_dsn: str) -> Iterator[EventStore]:
        layout, plain = Layout("usage"), Layout()
        client = connect(EventStoreConfig(dsn=empty_clickhouse_dsn))
        database = str(client.command("SELECT currentDatabase()"))
        for _, _, statement in migration_steps():
            # there is no Keeper here, which replicated tables and ON CLUSTER need
            client.command(plain.fill(re.sub(r"\{local:(\w+)\}", lambda name: layout.local(name[1]), statement)))
        for table, key in SHARDED_BY.items():
            local = layout.local(table)
            client.command(f"CREATE TABLE {table} AS remote('127.0.0.1', '{database}', '{local}', {key})")
            client.command(f"SYSTEM STOP TTL MERGES {local}")
        config = EventStoreConfig(dsn=empty_clickhouse_dsn, cluster="usage")
        for name, value in cluster_settings(config, replicas=1).items():
            client.set_client_setting(name, value)
        yield EventStore(client)
        client.close()

    @pytest.fixture
    def client(self, store: EventStore) -> Client:
        return store._client

    async def test_events_are_stored_counted_and_found_once(
        self, gateway, collect, aggregate, store, noon
    ) -> None:
        calls = gateway.calls(5, units=3, tokens=2)
        await gateway.ship(calls)
        await gateway.ship(calls[:2])
        await gateway.ship([{"v": 9}])
        await collect()
        assert await aggregate() == 1
        assert store.count_events() == 5
        (figures,) = store.hour_figures([HourKey("acc_1", to_ms(noon))])
        assert (figures.calls, figures.units, figures.dimensions) == (5, 15, {"tokens": 10})
        assert len(store.dead_letters()) == 1
        span = EventSpan(account_id="acc_1", start=noon, end=noon + timedelta(seconds=1))
        stored = search_events(store, span, EventFilters(), limit=10)
        assert len(stored) == 5
        named = EventFilters(request_id=stored[0].request_id)
        assert search_events(store, span, named, limit=10) == stored[:1]

    async def test_what_is_looked_up_beside_it_is_found_too(self, gateway, collect, store, noon) -> None:
        await gateway.ship([*gateway.calls(1), *gateway.calls(2, replayed="true")])
        await collect()
        hour = HourKey("acc_1", to_ms(noon))
        groups = replay_calls(store, hours=[hour], replay_hours=[hour], boundaries={})
        assert sorted(group.first.calls for group in groups) == [1, 1]
