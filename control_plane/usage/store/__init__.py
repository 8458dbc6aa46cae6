"""The event store: ClickHouse, embedded (`chdb:///dir`) or a server (`clickhouse://user:password@host:8123/db`).

Owns: the tables `usage_events` and `usage_dead_letters`, every ClickHouse statement, its connection settings.
Does not own: whose a call was (attribution), what an hour's figures mean (rollup).
"""

from control_plane.usage.store.client import EventStoreConfig, connect, migrate
from control_plane.usage.store.event_block import UnstorableRowError
from control_plane.usage.store.events import EventStore

__all__ = ["EventStore", "EventStoreConfig", "UnstorableRowError", "connect", "migrate"]
