"""A full disk under the embedded event store: nothing is taken as stored that is not."""

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from control_plane.usage.store.client import migrate

TABLES = ("usage_events", "usage_dead_letters")
RESERVE = "ALTER TABLE usage_events MODIFY SETTING min_free_disk_bytes_to_perform_insert"
MORE_THAN_ANY_DISK_HAS = 10**18


@pytest.fixture
def store(clickhouse_dsn):
    client = clickhouse_connect.get_client(dsn=clickhouse_dsn)
    migrate(client)
    yield client
    client.close()


class TestDiskReserve:
    @pytest.mark.parametrize("table", TABLES)
    def test_is_set_on_every_table_that_takes_usage(self, store, table):
        (text,) = store.query(f"SHOW CREATE TABLE {table}").first_row
        assert "min_free_disk_bytes_to_perform_insert = 67108864" in text

    def test_refuses_before_the_disk_is_full_and_takes_again_after(self, store):
        store.insert("usage_events", [["one"]], column_names=["event_id"])
        store.command(f"{RESERVE} = {MORE_THAN_ANY_DISK_HAS}")
        with pytest.raises(DatabaseError, match="NOT_ENOUGH_SPACE"):
            store.insert("usage_events", [["two"]], column_names=["event_id"])
        store.command("ALTER TABLE usage_events MODIFY SETTING min_free_disk_bytes_to_perform_insert = 67108864")
        store.insert("usage_events", [["three"]], column_names=["event_id"])
        found = store.query("SELECT event_id FROM usage_events FINAL ORDER BY event_id").result_rows
        assert found == [("one",), ("three",)]
