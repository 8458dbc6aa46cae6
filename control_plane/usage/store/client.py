"""Connections to ClickHouse and the steps that make its tables."""

import threading
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from control_plane.usage.store.layout import SHARDED_BY, Layout

_MIGRATIONS = "control_plane.usage.store.migrations"
# every role of a process opens a client of its own at start; steps one after another are quieter
_migrating = threading.Lock()


class UnknownClusterError(Exception):
    """The server knows no cluster of this name."""


@dataclass(frozen=True, slots=True)
class EventStoreConfig:
    """Where the events are. One query may take `query_memory_mb`, all that is embedded `total_memory_mb`.

    `cluster`: name of a cluster that the server of the DSN knows, '' for one server. `insert_quorum`: how many
    replicas must have a batch before it counts as stored.
    """

    dsn: str
    query_memory_mb: int = 1024
    total_memory_mb: int = 2048
    max_threads: int = 2
    cluster: str = ""
    insert_quorum: Literal["all", "majority"] = "all"

    @property
    def is_embedded(self) -> bool:
        return self.dsn.startswith("chdb:")

    @property
    def layout(self) -> Layout:
        return Layout(self.cluster)


def connect(config: EventStoreConfig, *, max_threads: int | None = None) -> Client:
    """Open one client. Every role (collector, aggregator, history) needs its own: a client does one thing at once.

    An embedded store may be open in one process only, which must not fork afterwards. Blocks; call it in a thread.

    Raises:
        clickhouse_connect.driver.exceptions.Error: the store cannot be reached or opened.
        UnknownClusterError: the server does not know the cluster.
    """
    settings: dict[str, Any] = {
        "max_memory_usage": config.query_memory_mb * 1024 * 1024,
        "max_threads": max_threads or config.max_threads,
        # rows of one event always share a partition, its day being part of what names it
        "do_not_merge_across_partitions_select_final": 1,
        # an index alone would pass over the version of an event that stays, and bring up one that it replaced
        "use_skip_indexes_if_final": 1,
        "use_skip_indexes_if_final_exact_mode": 1,
    }
    if config.is_embedded:
        return clickhouse_connect.get_client(
            dsn=config.dsn,
            settings=settings,
            chdb_options={"max_server_memory_usage": config.total_memory_mb * 1024 * 1024},
        )
    # a session would forbid two queries at once
    client = clickhouse_connect.get_client(dsn=config.dsn, settings=settings, autogenerate_session_id=False)
    if config.cluster:
        try:
            for name, value in cluster_settings(config, replicas=_replicas(client, config.cluster)).items():
                client.set_client_setting(name, value)
        except BaseException:
            client.close()
            raise
    return client


def cluster_settings(config: EventStoreConfig, *, replicas: int) -> dict[str, str | int]:
    """Return what a cluster needs so that a query finds every event that was acknowledged before."""
    common: dict[str, str | int] = {
        # answered when the shards have the rows, not when they wait to be sent there
        "distributed_foreground_insert": 1,
        "optimize_skip_unused_shards": 1,
        # an account's rows are on one shard: what a query looks up beside them is there, too
        "distributed_product_mode": "local",
        # a batch that is sent again after a failure must reach its quorum itself
        "insert_deduplicate": 0,
    }
    if config.insert_quorum == "all":
        return common | {"insert_quorum": replicas}
    # a replica without some acknowledged insert refuses the query; that needs inserts one after another
    return common | {"insert_quorum": "auto", "insert_quorum_parallel": 0, "select_sequential_consistency": 1}


def _replicas(client: Client, cluster: str) -> int:
    found = client.query(
        "SELECT max(replica_num) FROM system.clusters WHERE cluster = {cluster:String}",
        parameters={"cluster": cluster},
    )
    if not (replicas := int(found.result_rows[0][0])):
        raise UnknownClusterError(f"the event store's server knows no cluster {cluster!r}")
    return replicas


def migrate(client: Client, layout: Layout = Layout()) -> list[str]:  # noqa: B008 - frozen
    """Bring the store's tables to the newest form and return the steps taken.

    Steps are numbered, run in order, and each can be run twice, so several processes may start at once.
    """
    with _migrating:
        database = str(client.command("SELECT currentDatabase()"))
        client.command(layout.migrations_table(database))
        done = steps_done(client)
        taken = []
        for number, name, statement in migration_steps():
            if number in done:
                continue
            client.command(layout.fill(statement))
            client.insert("usage_store_migrations", [[number, name]], column_names=["number", "name"])
            taken.append(name)
        if layout.cluster:
            _put_distributed_tables(client, layout, database)
        return taken


def steps_done(client: Client) -> set[int]:
    """Return the numbers of the steps that the store has taken."""
    return {row[0] for row in client.query("SELECT number FROM usage_store_migrations FINAL").result_rows}


def _put_distributed_tables(client: Client, layout: Layout, database: str) -> None:
    """Make the Distributed tables where they are missing, or lack a column that a step has added."""
    for table in SHARDED_BY:
        if _columns(client, table) != _columns(client, layout.local(table)):
            client.command(layout.distributed_table(table, database=database))


def _columns(client: Client, table: str) -> list[tuple[str, str]]:
    found = client.query(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
        " ORDER BY position",
        parameters={"table": table},
    )
    return [(str(name), str(kind)) for name, kind in found.result_rows]


def migration_steps() -> list[tuple[int, str, str]]:
    """Return (number, name, statement), in order; the statements have gaps that `Layout.fill` fills."""
    steps = []
    for entry in resources.files(_MIGRATIONS).iterdir():
        if entry.name.endswith(".sql"):
            number, _, _ = entry.name.partition("_")
            steps.append((int(number), entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")))
    return sorted(steps)
