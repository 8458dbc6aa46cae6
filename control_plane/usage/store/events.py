"""What is written to and read from `usage_events`. Blocking: the caller runs it in a thread."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Self

from clickhouse_connect.driver.client import Client

from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.lines import DeadLetter
from control_plane.usage.model import HourKey
from control_plane.usage.store.client import EventStoreConfig, connect, migrate
from control_plane.usage.store.event_block import EventBlock
from control_plane.usage.store.layout import Layout
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

INSERT_SETTINGS = {
    # answered when the rows are in a part, not when they are in a queue
    "async_insert": 0,
    # a replay after a long absence may bring any number of days at once
    "max_partitions_per_insert_block": 0,
    "throw_on_max_partitions_per_insert_block": 0,
    "max_insert_threads": 1,
    # rows of one event are told apart when they are read (FINAL); to do so here, too, would double the time
    "optimize_on_insert": 0,
}
Voids = Mapping[HourKey, Collection[str]]
"""Ids of events that count nothing, by the hour they are in."""


@dataclass(frozen=True, slots=True)
class HourFigures:
    """Sums over the events of one hour (or one part of it) that share every other field here.

    `replayed`: the upstream said that it repeated an earlier answer. `upstream_ms` is 0 where it was not called.
    """

    account_id: str
    hour_ms: int
    product: str
    mode: Mode
    key_id: str
    endpoint: str
    status: int
    outcome: Outcome
    part: int
    calls: int
    units: int
    bytes_in: int
    bytes_out: int
    latency_ms: int
    gateway_ms: int
    upstream_ms: int = 0
    dimensions: Mapping[str, int] = field(default_factory=dict)
    replayed: bool = False


class EventStore:
    """One client of the event store for one role. Methods block; call them from one thread at a time."""

    def __init__(self, client: Client, *, layout: Layout = Layout()) -> None:  # noqa: B008 - frozen
        self._client = client
        self.layout = layout
        package = resources.files("control_plane.usage.store")
        self._hour_figures = (package / "hour_figures.sql").read_text(encoding="utf-8")
        self._replay_figures = self._hour_figures.replace("0 AS is_replay", "has(flags, 'replayed') AS is_replay")

    @classmethod
    def open(cls, config: EventStoreConfig, *, max_threads: int | None = None) -> Self:
        """Connect and make or update the tables; see `client.connect`."""
        client = connect(config, max_threads=max_threads)
        try:
            migrate(client, config.layout)
        except BaseException:
            client.close()
            raise
        return cls(client, layout=config.layout)

    def close(self) -> None:
        self._client.close()

    def insert(self, events: EventColumns) -> None:
        """Store events; returns when they will outlive this process. Storing one again changes no figure.

        Raises:
            UnstorableRowError: a value fits no column; none of these events is stored.
            clickhouse_connect.driver.exceptions.Error: the store failed; some of them may be stored.
        """
        if len(events):
            block = EventBlock()
            block.add(events.columns)
            self.insert_block(block)

    def insert_block(self, block: EventBlock, more: Mapping[str, Sequence[Any]] | None = None) -> None:
        """Store a block of events, `more` columns beside its own; see `insert`."""
        if not len(block):
            return
        names, body = block.body(more or {})
        self._client.raw_insert(
            "usage_events", column_names=names, insert_block=body, fmt="Native", settings=INSERT_SETTINGS
        )

    def insert_dead_letters(self, letters: Sequence[DeadLetter], *, received_at_ms: int) -> None:
        """Keep lines that are no events, with place and reason."""
        if not letters:
            return
        rows = [
            (
                letter.shipper_id,
                letter.segment,
                letter.start_offset,
                letter.number,
                letter.reason,
                letter.text,
                received_at_ms,
            )
            for letter in letters
        ]
        names = ["shipper_id", "segment", "start_offset", "number", "reason", "line", "received_at"]
        self._client.insert("usage_dead_letters", rows, column_names=names, settings=INSERT_SETTINGS)

    def hour_figures(
        self,
        hours: Sequence[HourKey],
        *,
        boundaries: Mapping[str, Sequence[int]] | None = None,
        with_replays: bool = False,
        voids: Voids | None = None,
    ) -> list[HourFigures]:
        """Return the figures of these hours, each event counted once, and those in `voids` not at all.

        `boundaries` gives sorted moments (ms) by account; an hour is cut at those inside it, `part` being the
        number of moments at or before the event. Replays are told apart only `with_replays`.
        """
        if not hours:
            return []
        result = self._client.query(
            self._replay_figures if with_replays else self._hour_figures,
            parameters={**hour_parameters(hours, boundaries or {}), **void_parameters(voids or {})},
        )
        return [
            HourFigures(
                account_id=row[0],
                hour_ms=row[1] * 1000,
                product=row[2],
                mode=Mode(row[3]),
                key_id=row[4],
                endpoint=row[5],
                status=row[6],
                outcome=Outcome(row[7]),
                part=row[8],
                replayed=bool(row[9]),
                calls=row[10],
                units=row[11],
                bytes_in=row[12],
                bytes_out=row[13],
                latency_ms=row[14],
                gateway_ms=row[15],
                upstream_ms=row[16],
                dimensions=row[17],
            )
            for row in result.result_rows
        ]

    def query(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of one query."""
        return self._client.query(statement, parameters=dict(parameters)).result_rows

    def raw(
        self, statement: str, parameters: Mapping[str, Any], *, fmt: str, settings: Mapping[str, Any]
    ) -> bytes:
        """Return what one query selects in a format of ClickHouse, all of it."""
        return self._client.raw_query(statement, dict(parameters) or None, dict(settings), fmt)

    def limit(self, *, seconds: int) -> None:
        """Let no query of this client run longer; see `event_reads.QueryTooLargeError`."""
        self._client.set_client_setting("max_execution_time", seconds)

    def count_events(self, *, account_id: str | None = None) -> int:
        """Return how many distinct events are stored."""
        where = "" if account_id is None else "WHERE account_id = {account_id:String}"
        query = f"SELECT count() FROM usage_events FINAL {where}"  # noqa: S608 - a constant, no input
        return int(self._client.query(query, parameters={"account_id": account_id or ""}).result_rows[0][0])

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first."""
        result = self._client.query(
            "SELECT shipper_id, segment, start_offset, number, reason, line FROM usage_dead_letters FINAL"
            " ORDER BY received_at DESC, shipper_id, segment, start_offset, number LIMIT {limit:UInt32}",
            parameters={"limit": limit},
        )
        return [DeadLetter(*row) for row in result.result_rows]


def void_parameters(voids: Voids) -> dict[str, Any]:
    """Return the parameters that name voided events, as three arrays of equal length."""
    named = [(key, event_id) for key, event_ids in voids.items() for event_id in sorted(event_ids)]
    return {
        "voided_accounts": [key.account_id for key, _ in named],
        "voided_hours": [key.hour_ms // 1000 for key, _ in named],
        "voided_events": [event_id for _, event_id in named],
    }


def hour_parameters(hours: Sequence[HourKey], boundaries: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the parameters that name hours, and the moments at which they are cut by account."""
    seconds = [key.hour_ms // 1000 for key in hours]
    return {
        "accounts": [key.account_id for key in hours],
        "hours": seconds,
        "first_hour": min(seconds),
        "last_hour": max(seconds),
        "split_accounts": list(boundaries),
        "boundaries": [list(moments) for moments in boundaries.values()],
    }
