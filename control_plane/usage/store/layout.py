"""How statements that make tables look on one server, and on a cluster: the same text with its gaps filled. Pure.

On a cluster each table is a replicated one on every node (`NAME_local`) behind a Distributed table of the plain
name, which everything else reads and writes. All versions of one event share a shard, so `FINAL` is right there.
"""

import re
from dataclasses import dataclass

# Versions of one row must meet on one shard: what a table is sharded by is part of what names its rows.
SHARDED_BY = {
    "usage_events": "cityHash64(account_id)",
    "usage_dead_letters": "cityHash64(shipper_id, segment, start_offset, number)",
}
_GAP = re.compile(r"\{(local):(\w+)\}|\{(on_cluster|replicated)\}")


@dataclass(frozen=True, slots=True)
class Layout:
    """One server, or the named cluster, whose nodes define the macros {shard} and {replica}."""

    cluster: str = ""

    def local(self, table: str) -> str:
        """Return the name of the table that holds rows on each node."""
        return f"{table}_local" if self.cluster else table

    def fill(self, statement: str) -> str:
        """Return the statement with `{local:NAME}`, `{on_cluster}` and `{replicated}` filled in."""
        on_cluster = f" ON CLUSTER {quote(self.cluster)}" if self.cluster else ""
        filled = {"on_cluster": on_cluster, "replicated": "Replicated" if self.cluster else ""}
        return _GAP.sub(lambda found: self.local(found[2]) if found[1] else filled[found[3]], statement)

    def migrations_table(self, database: str) -> str:
        """Return the statement that makes the list of steps taken: on a cluster one list for all nodes."""
        place = f"'/kong-monetize/{database}/usage_store_migrations', '{{shard}}-{{replica}}'"
        engine = f"ReplacingMergeTree({place})" if self.cluster else "ReplacingMergeTree"
        return self.fill(
            "CREATE TABLE IF NOT EXISTS usage_store_migrations{on_cluster}\n"
            "(number UInt32, name String, applied_at DateTime('UTC') DEFAULT now())\n"
            f"ENGINE = {{replicated}}{engine} ORDER BY number"
        )

    def distributed_table(self, table: str, *, database: str) -> str:
        """Return the statement that puts the Distributed table before the local ones, with their columns."""
        return self.fill(
            f"CREATE OR REPLACE TABLE {table}{{on_cluster}} AS {{local:{table}}}\n"
            f"ENGINE = Distributed({quote(self.cluster)}, {quote(database)}, {quote(self.local(table))},"
            f" {SHARDED_BY[table]})"
        )


def quote(text: str) -> str:
    """Return a ClickHouse string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
