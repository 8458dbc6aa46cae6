"""The event store's tables: how they are made, brought up to date with events in them, laid out on a cluster."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from control_plane.usage.store.client import (
    EventStoreConfig,
    cluster_settings,
    connect,
    migrate,
    migration_steps,
)
from control_plane.usage.store.layout import SHARDED_BY, Layout

GOLDEN = Path(__file__).parent / "data" / "store_on_a_cluster.sql"
CLUSTER = Layout("usage")


@pytest.fixture
def client(empty_clickhouse_dsn: str) -> Iterator[Client]:
    client = connect(EventStoreConfig(dsn=empty_clickhouse_dsn))
    yield client
    client.close()


def take_steps(client: Client, up_to: int) -> None:
    """Bring the tables to the form that an older version of the product left."""
    client.command(Layout().migrations_table("any"))
    for number, name, statement in migration_steps():
        if number <= up_to:
            client.command(Layout().fill(statement))
            client.insert("usage_store_migrations", [[number, name]], column_names=["number", "name"])


def on_cluster() -> dict[str, str]:
    """Return every statement that makes tables, by name, as a cluster gets it."""
    steps = {name: CLUSTER.fill(statement) for _, name, statement in migration_steps()}
    tables = {table: CLUSTER.distributed_table(table, database="events") for table in SHARDED_BY}
    return {"list of steps": CLUSTER.migrations_table("events"), **steps, **tables}


class TestMigrate:
    @pytest.mark.parametrize("form", [1, 2, 5])
    def test_keeps_events_of_every_earlier_form(self, client: Client, form: int) -> None:
        take_steps(client, form)
        client.command(
            "INSERT INTO usage_events (event_id, request_id, account_id, occurred_at, outcome, units)"
            " SELECT 'e' || toString(number), 'r' || toString(number), 'acc', now64(3), 'served', number"
            " FROM numbers(1000)"
        )
        assert len(migrate(client)) == len(migration_steps()) - form
        query = "SELECT count(), sum(units), any(retention_days), countIf(plan = '') FROM usage_events FINAL"
        assert client.query(query).result_rows == [(1000, 499_500, 90, 1000)]
        assert migrate(client) == []

    def test_each_step_can_be_taken_twice(self, client: Client) -> None:
        migrate(client)
        before = client.command("SHOW CREATE TABLE usage_events")
        client.command("TRUNCATE TABLE usage_store_migrations")
        assert len(migrate(client)) == len(migration_steps())
        assert client.command("SHOW CREATE TABLE usage_events") == before

    def test_several_may_start_at_once(self, empty_clickhouse_dsn: str) -> None:
        def start(_: int) -> int:
            client = connect(EventStoreConfig(dsn=empty_clickhouse_dsn))
            try:
                return len(migrate(client))
            finally:
                client.close()

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(start, range(4))) == len(migration_steps())

    def test_numbers_are_used_once(self) -> None:
        numbers = [number for number, _, _ in migration_steps()]
        assert len(set(numbers)) == len(numbers)


class TestOnACluster:
    def test_tables_are_made_as_written_down(self) -> None:
        statements = {name: text for name, text in on_cluster().items() if not name[:4].isdigit() or name < "0010"}
        text = "".join(f"-- {name}\n{statement.strip()};\n\n" for name, statement in statements.items())
        assert text == GOLDEN.read_text(encoding="utf-8")

    def test_statements_are_clickhouse_sql(self, client: Client) -> None:
        for name, statement in on_cluster().items():
            formatted = client.query("SELECT formatQuery({q:String})", parameters={"q": statement}).result_rows[0][
                0
            ]
            assert "ON CLUSTER" in formatted, name
            assert "{" not in formatted.replace("{shard}-{replica}", ""), name

    def test_every_table_with_rows_is_replicated_and_local(self) -> None:
        for name, statement in on_cluster().items():
            if "ENGINE" in statement:
                assert "Engine = Replicated".lower() in statement.lower() or name in SHARDED_BY, name
            assert "_local" in statement or name == "list of steps", name

    def test_inserts_wait_for_every_replica_and_queries_for_no_other(self) -> None:
        config = EventStoreConfig(dsn="clickhouse://node", cluster="usage")
        settings = cluster_settings(config, replicas=3)
        assert settings["insert_quorum"] == 3
        assert settings["distributed_foreground_insert"] == 1

    def test_a_majority_is_enough_where_queries_check(self) -> None:
        config = EventStoreConfig(dsn="clickhouse://node", cluster="usage", insert_quorum="majority")
        settings = cluster_settings(config, replicas=3)
        assert (settings["insert_quorum"], settings["insert_quorum_parallel"]) == ("auto", 0)
        assert settings["select_sequential_consistency"] == 1

    def test_one_server_has_plain_tables(self) -> None:
        for _, name, statement in migration_steps():
            plain = Layout().fill(statement)
            assert "CLUSTER" not in plain, name
            assert "Replicated" not in plain, name
            assert "{" not in plain, name
