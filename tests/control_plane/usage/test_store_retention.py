"""Events expire by their own retention; hours whose events may be gone keep their figures."""

# ruff: noqa: PLR0917 - fixtures are arguments

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from clickhouse_connect.driver.client import Client
from sqlalchemy import select, text

from control_plane.foundation.clock import floor_hour, utc_now
from control_plane.usage.collect.enrichment import KeptDays
from control_plane.usage.operations import touch_hours
from control_plane.usage.store.client import EventStoreConfig, connect, migrate
from control_plane.usage.tables import TouchedHour, UsageHour, UsageHourly

LONGEST_WAIT_SECONDS = 30.0


@pytest.fixture
def client(empty_clickhouse_dsn: str) -> Iterator[Client]:
    """A store whose events expire by the clock of the machine."""
    client = connect(EventStoreConfig(dsn=empty_clickhouse_dsn))
    migrate(client)
    yield client
    client.close()


def put(client: Client, *, days_ago: float, retention_days: int, count: int = 10) -> None:
    client.command(
        "INSERT INTO usage_events (event_id, account_id, occurred_at, retention_days) SELECT"
        " 'e' || toString(number), 'kept ' || toString({days:UInt16}),"
        " now64(3) - toIntervalSecond({seconds:UInt64}), {days:UInt16} FROM numbers({count:UInt32})",
        parameters={"seconds": int(days_ago * 86400), "days": retention_days, "count": count},
    )


def until(found: Callable[[], object], expected: object) -> None:
    """Wait for what ClickHouse does when it likes, hurrying it."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while found() != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found() == expected


class TestExpiry:
    def test_takes_each_event_when_its_own_days_are_over(self, client: Client) -> None:
        for days_ago, retention_days in [(200, 90), (200, 400), (80, 90), (95, 90), (450, 400), (1, 90)]:
            put(client, days_ago=days_ago, retention_days=retention_days)

        def left() -> list[tuple[int, ...]]:
            client.command("OPTIMIZE TABLE usage_events")
            query = (
                "SELECT intDiv(dateDiff('day', hour, now()), 10) * 10 AS age, retention_days, count()"
                " FROM usage_events FINAL GROUP BY age, retention_days ORDER BY age"
            )
            return [tuple(row) for row in client.query(query).result_rows]

        until(left, [(0, 90, 10), (80, 90, 10), (200, 400, 10)])

    def test_takes_what_was_stored_before_there_was_any(self, client: Client) -> None:
        client.command("ALTER TABLE usage_events REMOVE TTL")
        client.command("SYSTEM STOP MERGES usage_events")
        put(client, days_ago=200, retention_days=90)
        put(client, days_ago=10, retention_days=90)
        client.command("SYSTEM START MERGES usage_events")
        client.command("ALTER TABLE usage_store_migrations DELETE WHERE number = 6 SETTINGS mutations_sync = 1")
        assert migrate(client) == ["0006_retention"]
        until(lambda: client.command("SELECT count() FROM usage_events FINAL"), 10)

    def test_takes_dead_letters_after_a_year(self, client: Client) -> None:
        for days_ago in (10, 364, 430):
            client.command(
                "INSERT INTO usage_dead_letters (shipper_id, received_at)"
                " SELECT {days:String}, now64(3) - toIntervalDay({days:UInt16})",
                parameters={"days": str(days_ago)},
            )

        def left() -> list[str]:
            client.command("OPTIMIZE TABLE usage_dead_letters")
            found = client.query("SELECT shipper_id FROM usage_dead_letters FINAL ORDER BY shipper_id")
            return [row[0] for row in found.result_rows]

        until(left, ["10", "364"])


class TestHoursPastRetention:
    @pytest.fixture
    def long_ago(self) -> datetime:
        return floor_hour(utc_now()) - timedelta(days=200)

    async def test_keep_their_figures_when_they_are_touched(
        self, gateway, collect, aggregate, sessions, store, long_ago
    ):
        await gateway.ship(gateway.calls(7, at=long_ago))
        await collect(now=long_ago + timedelta(minutes=5))
        assert await aggregate(long_ago + timedelta(minutes=6)) == 1
        store._client.command("SYSTEM START TTL MERGES usage_events")

        def left() -> int:
            store._client.command("OPTIMIZE TABLE usage_events FINAL")
            return store.count_events()

        until(left, 0)
        now = utc_now()
        async with sessions() as session, session.begin():
            assert await touch_hours(session, account_id="acc_1", start=long_ago, end=now, now=now) == 1
        assert await aggregate(now) == 1
        async with sessions() as session:
            assert await session.scalar(text("SELECT sum(calls) FROM usage_hourly")) == 7
            assert (await session.scalars(select(UsageHourly.revision))).all() == [1]
            assert (await session.scalars(select(TouchedHour))).all() == []

    async def test_are_left_out_where_they_have_none(self, aggregate, sessions, long_ago):
        async with sessions() as session, session.begin():
            session.add(TouchedHour(account_id="acc_1", hour=long_ago, touched_at=long_ago))
        assert await aggregate(utc_now()) == 1
        async with sessions() as session:
            assert (await session.scalars(select(TouchedHour))).all() == []
            assert (await session.scalars(select(UsageHour))).all() == []

    async def test_get_no_late_events(self, gateway, collect, aggregate, sessions, store, noon):
        oldest = noon - timedelta(days=89)
        await gateway.ship(gateway.calls(1, at=oldest - timedelta(milliseconds=1)))
        await gateway.ship(gateway.calls(1, at=oldest))
        await collect(now=noon)
        assert store.count_events() == 1
        (letter,) = store.dead_letters()
        assert letter.reason.startswith("too late")
        assert f'"at":{int((oldest - timedelta(milliseconds=4)).timestamp() * 1000)}' in letter.text
        async with sessions() as session:
            assert [mark.hour for mark in await session.scalars(select(TouchedHour))] == [oldest]

    async def test_events_carry_the_days_of_their_time(self, gateway, collect, store, noon):
        await gateway.ship(gateway.calls(1, at=noon))
        await collect(now=noon, kept=KeptDays(default_days=120))
        await gateway.ship(gateway.calls(1, at=noon + timedelta(seconds=1)))
        await collect(now=noon, kept=KeptDays(default_days=90))
        rows = store.query("SELECT retention_days FROM usage_events FINAL ORDER BY occurred_at", {})
        assert [row[0] for row in rows] == [120, 90]
