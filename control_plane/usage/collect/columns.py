"""Events by column, as they are written to the store."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from control_plane.usage.collect.lines import UsageLine
from control_plane.usage.model import HourKey

COLUMN_NAMES = (
    "event_id",
    "request_id",
    "occurred_at",
    "account_id",
    "key_id",
    "mode",
    "product",
    "service",
    "route",
    "endpoint",
    "method",
    "path",
    "status",
    "outcome",
    "units",
    "dimensions",
    "bytes_in",
    "bytes_out",
    "latency_ms",
    "gateway_ms",
    "upstream_ms",
    "client_ip",
    "emitter",
    "call_number",
    "flags",
    "ingested_at",
    "shipper",
    "subscription_id",
    "plan",
    "retention_days",
    "source",
    "event_type",
    "properties",
)
# What a batch may leave out, to be filled with the store's defaults.
OPTIONAL_COLUMNS = frozenset(
    {
        "shipper",
        "subscription_id",
        "plan",
        "retention_days",
        "source",
        "event_type",
        "properties",
    }
)


@dataclass(slots=True)
class EventColumns:
    """Events by column (see COLUMN_NAMES; times as ms since 1970), and what was noticed about them.

    All columns are there but OPTIONAL_COLUMNS, or, where there are no events, none.
    `replay_hours`: those of the hours that hold calls flagged `replayed`.
    """

    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    hours: set[HourKey] = field(default_factory=set)
    replay_hours: set[HourKey] = field(default_factory=set)
    implausible: list[UsageLine] = field(default_factory=list)
    expired: list[UsageLine] = field(default_factory=list)
    unproven: list[UsageLine] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.columns.get("event_id", ()))

    def extend(self, more: "EventColumns") -> None:
        """Add rows that have the same columns, and what was noticed about them."""
        if len(more):
            if not self.columns:
                self.columns = {name: [] for name in more.columns}
            for name, column in self.columns.items():
                cast("list[Any]", column).extend(more.columns[name])
        self.hours |= more.hours
        self.replay_hours |= more.replay_hours
        self.implausible += more.implausible
        self.expired += more.expired
        self.unproven += more.unproven
        self.flags.update(more.flags)

    def slice(self, start: int, end: int) -> "EventColumns":
        """Return some of the rows, without what was noticed."""
        return EventColumns({name: column[start:end] for name, column in self.columns.items()})

    def without(self, rows: Collection[int]) -> "EventColumns":
        """Return this without some rows, but with all that was noticed."""
        kept = [row for row in range(len(self)) if row not in rows]
        columns: dict[str, Sequence[Any]] = {
            name: [column[row] for row in kept] for name, column in self.columns.items()
        }
        return replace(self, columns=columns)
