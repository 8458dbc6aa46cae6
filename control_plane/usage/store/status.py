"""What the event store holds, by table. Blocking: the caller runs it in a thread."""

from dataclasses import dataclass
from datetime import date

from control_plane.usage.store.events import EventStore
from control_plane.usage.store.layout import SHARDED_BY, quote

_PARTS = """
SELECT
    table, sum(rows), sum(bytes_on_disk), count(), uniqExact(partition), min(partition), max(partition),
    sumIf(rows, delete_ttl_info_max > toDateTime(0) AND delete_ttl_info_max < now())
FROM {parts}
WHERE active AND database = currentDatabase() AND table IN {{tables:Array(String)}}
GROUP BY table
ORDER BY table
"""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """`rows` as stored: versions of one row that were not merged yet count one by one.

    `partitions` are days of events and months of dead letters (`oldest_day` is then the first of one).
    `expired_rows` will go with the next merge.
    """

    table: str
    rows: int
    bytes: int
    parts: int
    partitions: int
    oldest_day: date | None
    newest_day: date | None
    expired_rows: int


def store_status(store: EventStore) -> list[TableStatus]:
    """Return what is stored in each table; on a cluster by one replica of each shard, added up."""
    cluster = store.layout.cluster
    parts = f"cluster({quote(cluster)}, system.parts)" if cluster else "system.parts"
    tables = {store.layout.local(table): table for table in SHARDED_BY}
    rows = store.query(_PARTS.format(parts=parts), {"tables": list(tables)})
    found = {
        tables[name]: TableStatus(
            tables[name], held, size, parts_held, partitions, _day(oldest), _day(newest), expired
        )
        for name, held, size, parts_held, partitions, oldest, newest, expired in rows
    }
    return [found.get(table) or TableStatus(table, 0, 0, 0, 0, None, None, 0) for table in SHARDED_BY]


def _day(partition: str) -> date:
    """Return the day that a partition (YYYYMMDD or YYYYMM) begins with."""
    return date(int(partition[:4]), int(partition[4:6]), int(partition[6:] or "1"))
