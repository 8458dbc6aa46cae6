"""An event store is copied to a server: everything, once, however often it is begun."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.foundation.clock import floor_hour, to_ms, utc_now
from control_plane.usage.model import HourKey
from control_plane.usage.store import EventStore, EventStoreConfig, copying
from control_plane.usage.store.copying import CopyError, CopyReport, Progress, copy_store
from control_plane.usage.store.status import store_status
from devstack.stores.clickhouse import EmbeddedClickHouse

PUT = """
INSERT INTO usage_events
    (event_id, request_id, account_id, occurred_at, product, mode, status, outcome, units, dimensions, flags,
    retention_days)
SELECT
    'e' || toString(number), {request:String} || toString(number), 'acc_1',
    fromUnixTimestamp64Milli({first_ms:Int64} + number * 600000, 'UTC'),
    'weather', 'live', 200, 'served', number, map('tokens', number), [{flag:String}], {days:UInt16}
FROM numbers({count:UInt32})
"""


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    server = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server_dsn(shared_server: EmbeddedClickHouse) -> Iterator[str]:
    """DSN of a store on a server, without events."""
    store = EventStore.open(EventStoreConfig(dsn=shared_server.dsn))
    for table in ("usage_events", "usage_dead_letters"):
        store._client.command(f"TRUNCATE TABLE {table}")
    yield shared_server.dsn
    store.close()


@pytest.fixture
def now() -> datetime:
    return utc_now()


def put(store: EventStore, first: datetime, **more: object) -> None:
    values = {"first_ms": to_ms(first), "request": "r", "flag": "", "days": 90, "count": 300} | more
    store._client.command(PUT, parameters=values)


def copied(source: str, target: str, **more: object) -> CopyReport:
    return copy_store(EventStoreConfig(dsn=source), EventStoreConfig(dsn=target), **{"now": utc_now()} | more)


def rows_of(dsn: str, table: str, *columns: str) -> list[tuple[Any, ...]]:
    store = EventStore.open(EventStoreConfig(dsn=dsn))
    try:
        names = ", ".join(columns) or "*"
        return [tuple(row) for row in store.query(f"SELECT {names} FROM {table} FINAL ORDER BY ALL", {})]
    finally:
        store.close()


class TestCopy:
    @pytest.fixture
    def filled(self, store: EventStore, clickhouse_dsn: str, now: datetime) -> str:
        """Fifty hours of events, of which the first three were stored twice, and a dead letter."""
        first = floor_hour(now) - timedelta(days=20)
        put(store, first)
        put(store, first, request="other", flag="lone_receipt", count=18)
        store._client.insert(
            "usage_dead_letters",
            [["node_a", "seg", 7, 1, "no", "{}", now]],
            column_names=["shipper_id", "segment", "start_offset", "number", "reason", "line", "received_at"],
        )
        return clickhouse_dsn

    def test_brings_everything_once(self, filled: str, server_dsn: str, store: EventStore) -> None:
        report = copied(filled, server_dsn)
        assert (report.events, report.dead_letters) == (300, 1)
        assert report.days_copied == report.days >= 3
        for table in ("usage_events", "usage_dead_letters"):
            assert rows_of(server_dsn, table) == rows_of(filled, table)
        again = copied(filled, server_dsn)
        assert (again.events, again.days, again.days_copied) == (300, report.days, 0)

    def test_keeps_which_version_of_an_event_stays(self, filled: str, server_dsn: str, now: datetime) -> None:
        copied(filled, server_dsn)
        target = EventStore.open(EventStoreConfig(dsn=server_dsn))
        put(target, floor_hour(now) - timedelta(days=20), request="other", flag="lone_receipt", count=18)
        target.close()
        assert rows_of(server_dsn, "usage_events") == rows_of(filled, "usage_events")

    def test_goes_on_where_it_was_broken_off(self, filled: str, server_dsn: str, monkeypatch) -> None:
        monkeypatch.setattr(copying, "ROWS_AT_ONCE", 25)
        pieces: list[Progress] = []

        def break_off(progress: Progress) -> None:
            pieces.append(progress)
            if progress.copied > 200:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copied(filled, server_dsn, tell=break_off)
        assert len(pieces) > 5
        report = copied(filled, server_dsn, tell=pieces.append)
        assert 0 < report.days_copied < report.days
        assert pieces[-1].copied == pieces[-1].rows
        assert rows_of(server_dsn, "usage_events") == rows_of(filled, "usage_events")

    def test_says_which_days_differ(self, filled: str, server_dsn: str, store: EventStore, now: datetime) -> None:
        first = floor_hour(now) - timedelta(days=20)

        def write_meanwhile(_: Progress) -> None:
            put(store, first, count=310)

        with pytest.raises(CopyError, match=r"usage_events of .* rows, the copy has ") as refused:
            copied(filled, server_dsn, tell=write_meanwhile)
        assert "still writing" in str(refused.value)

    def test_leaves_out_what_has_expired(self, store, clickhouse_dsn: str, server_dsn: str, now: datetime) -> None:
        put(store, now - timedelta(days=200), count=100)
        put(store, now - timedelta(days=200), count=50, days=400)
        put(store, now - timedelta(days=80), count=10)
        assert copied(clickhouse_dsn, server_dsn).events == 60
        assert len(rows_of(server_dsn, "usage_events")) == 60

    def test_takes_only_days_before_one_if_told(self, filled: str, server_dsn: str, now: datetime) -> None:
        before = (now - timedelta(days=19)).date()
        report = copied(filled, server_dsn, before=before)
        kept = rows_of(server_dsn, "usage_events", "hour")
        assert len(kept) == report.events < 300
        assert max(hour.date() for (hour,) in kept) < before

    def test_refuses_a_target_that_is_newer(self, filled: str, server_dsn: str) -> None:
        store = EventStore.open(EventStoreConfig(dsn=server_dsn))
        store._client.insert("usage_store_migrations", [[9000, "later"]], column_names=["number", "name"])
        store.close()
        with pytest.raises(CopyError, match="the target is of a newer version"):
            copied(filled, server_dsn)
        store = EventStore.open(EventStoreConfig(dsn=server_dsn))
        store._client.command("DELETE FROM usage_store_migrations WHERE number = 9000")
        store.close()

    def test_brings_an_older_target_up_to_date(self, filled: str, server_dsn: str) -> None:
        store = EventStore.open(EventStoreConfig(dsn=server_dsn))
        store._client.command("DROP TABLE usage_events")
        store._client.command("TRUNCATE TABLE usage_store_migrations")
        store.close()
        assert copied(filled, server_dsn).events == 300

    @pytest.mark.parametrize("directory", ["missing", ""])
    def test_refuses_a_source_that_is_none(self, tmp_path: Path, server_dsn: str, directory: str) -> None:
        with pytest.raises(CopyError, match="there is no event store"):
            copied(f"chdb://{tmp_path / directory}", server_dsn)
        assert list(tmp_path.iterdir()) == []

    def test_refuses_to_copy_a_store_onto_itself(self, filled: str) -> None:
        with pytest.raises(CopyError, match="are the same"):
            copied(filled, filled)


class TestServer:
    def test_counts_hours_like_the_embedded_store(self, store, clickhouse_dsn, server_dsn, noon) -> None:
        target = EventStore.open(EventStoreConfig(dsn=server_dsn))
        target._client.command("SYSTEM STOP TTL MERGES usage_events")
        # more hours than an address can name: they go as a form
        hours = [HourKey("acc_1", to_ms(noon) + number * 3_600_000) for number in range(500)]
        try:
            put(store, noon)
            put(target, noon)
            boundaries = {"acc_1": [to_ms(noon) + 90_000_000]}
            figures = [
                sorted(one.hour_figures(hours, boundaries=boundaries), key=lambda row: (row.hour_ms, row.part))
                for one in (store, target)
            ]
        finally:
            target.close()
        assert figures[0] == figures[1]
        assert sum(row.calls for row in figures[1]) == 300

    def test_keeps_what_it_acknowledged_through_a_kill(self, shared_server, server_dsn, noon) -> None:
        target = EventStore.open(EventStoreConfig(dsn=server_dsn))
        put(target, utc_now() - timedelta(days=3), count=10)
        shared_server.kill()
        shared_server.start()
        assert target.count_events() == 10
        target.close()


class TestStatus:
    def test_says_what_is_stored_and_what_has_expired(self, store: EventStore, now: datetime) -> None:
        put(store, now - timedelta(days=200), count=10)
        put(store, now - timedelta(days=2), count=5)
        events, letters = store_status(store)
        assert (events.table, events.rows, events.expired_rows) == ("usage_events", 15, 10)
        assert events.oldest_day == (now - timedelta(days=200)).date()
        assert events.bytes > 0
        assert (letters.table, letters.rows, letters.oldest_day) == ("usage_dead_letters", 0, None)
