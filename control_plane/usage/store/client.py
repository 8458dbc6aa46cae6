"""Connections to ClickHouse and the steps that make its tables."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client

_MIGRATIONS = "control_plane.usage.store.migrations"
_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS usage_store_migrations
(number UInt32, name String, applied_at DateTime('UTC') DEFAULT now())
ENGINE = ReplacingMergeTree ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class EventStoreConfig:
    """Where the events are. One query may take `query_memory_mb`, all that is embedded `total_memory_mb`."""

    dsn: str
    query_memory_mb: int = 1024
    total_memory_mb: int = 2048
    max_threads: int = 2

    @property
    def is_embedded(self) -> bool:
        return self.dsn.startswith("chdb:")


def connect(config: EventStoreConfig, *, max_threads: int | None = None) -> Client:
    """Open one client. Every role (collector, aggregator, history) needs its own: a client does one thing at once.

    An embedded store may be open in one process only, which must not fork afterwards. Blocks; call it in a thread.

    Raises:
        clickhouse_connect.driver.exceptions.Error: the store cannot be reached or opened.
    """
    settings: dict[str, Any] = {
        "max_memory_usage": config.query_memory_mb * 1024 * 1024,
        "max_threads": max_threads or config.max_threads,
        # rows of one event always share a partition, its day being part of what names it
        "do_not_merge_across_partitions_select_final": 1,
    }
    if config.is_embedded:
        return clickhouse_connect.get_client(
            dsn=config.dsn,
            settings=settings,
            chdb_options={"max_server_memory_usage": config.total_memory_mb * 1024 * 1024},
        )
    # a session would forbid two queries at once
    return clickhouse_connect.get_client(dsn=config.dsn, settings=settings, autogenerate_session_id=False)


def migrate(client: Client) -> list[str]:
    """Bring the store's tables to the newest form and return the steps taken.

    Steps are numbered, run in order, and each can be run twice, so several processes may start at once.
    """
    client.command(_MIGRATIONS_TABLE)
    done = {row[0] for row in client.query("SELECT number FROM usage_store_migrations FINAL").result_rows}
    taken = []
    for number, name, statement in migration_steps():
        if number in done:
            continue
        client.command(statement)
        client.insert("usage_store_migrations", [[number, name]], column_names=["number", "name"])
        taken.append(name)
    return taken


def migration_steps() -> list[tuple[int, str, str]]:
    """Return (number, name, statement), in order."""
    steps = []
    for entry in resources.files(_MIGRATIONS).iterdir():
        if entry.name.endswith(".sql"):
            number, _, _ = entry.name.partition("_")
            steps.append((int(number), entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")))
    return sorted(steps)
