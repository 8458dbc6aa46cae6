"""Events written straight into the store: how they get there is tested elsewhere."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import clickhouse_connect
import pytest

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.usage.store import EventStore, EventStoreConfig
from devstack.stores.event_store import event_store_dsn
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import UsageEvent

NOON = datetime(2026, 3, 17, 12, 0, tzinfo=UTC)
EVENT = UsageEvent(
    event_id="node-0",
    request_id="0" * 32,
    occurred_at_ms=to_ms(NOON),
    account_id="acc_1",
    key_id="key_1",
    mode=Mode.LIVE,
    product="weather",
    service="weather",
    route="weather-v1",
    endpoint="GET /weather/v1/current/{city}",
    method="GET",
    path="/weather/v1/current/oslo",
    status=200,
    outcome=Outcome.SERVED,
    units=1,
    client_ip="203.0.113.7",
    emitter="node",
)


def an_event(number: int, **changes) -> UsageEvent:
    """One of many: each has its own id, request id and millisecond."""
    own = {
        "event_id": f"node-{number}",
        "request_id": f"{number:032x}",
        "occurred_at_ms": EVENT.occurred_at_ms + number,
        "call_number": number,
    }
    return replace(EVENT, **{**own, **changes})


def keep_events(store: EventStore, events: Iterable[UsageEvent]) -> None:
    names = [field.name for field in fields(UsageEvent) if field.name != "occurred_at_ms"]
    rows = [
        [
            from_ms(event.occurred_at_ms),
            *(list(value) if isinstance(value := getattr(event, name), tuple) else value for name in names),
        ]
        for event in events
    ]
    if rows:
        store._client.insert("usage_events", rows, column_names=["occurred_at", *names])


@contextmanager
def one_event_store(directory: Path) -> Iterator[tuple[str, EventStore]]:
    """A database of the event store for many tests: making one takes longer than most of them."""
    dsn = event_store_dsn(directory)
    name = f"shared_{secrets.token_hex(6)}"
    client = clickhouse_connect.get_client(dsn=dsn)
    client.command(f"CREATE DATABASE {name}")
    own_dsn = event_store_dsn(directory, database=name)
    store = EventStore.open(EventStoreConfig(dsn=own_dsn))
    store._client.command("SYSTEM STOP TTL MERGES usage_events")
    yield own_dsn, store
    store.close()
    client.command(f"DROP DATABASE {name}")
    client.close()


@pytest.fixture(scope="module")
def shared_event_store(event_store_directory: Path) -> Iterator[tuple[str, EventStore]]:
    with one_event_store(event_store_directory) as found:
        yield found


@pytest.fixture
def clickhouse_dsn(shared_event_store: tuple[str, EventStore]) -> str:
    """The module's store, emptied."""
    dsn, store = shared_event_store
    store._client.command("TRUNCATE TABLE usage_events")
    return dsn


@pytest.fixture
def store(shared_event_store: tuple[str, EventStore], clickhouse_dsn: str) -> EventStore:
    return shared_event_store[1]


@pytest.fixture
def keep(store: EventStore) -> Callable[..., None]:
    return lambda *events: keep_events(store, events)
