"""Accepted events on their way into the event store: as bytes in PostgreSQL, and as the store's columns. Pure."""

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.ingest.model import PlacedEvent
from control_plane.usage.model import HourKey
from control_plane.usage.retention import retention_days
from gateway_contract.counters import HOUR_MS
from gateway_contract.outcomes import Outcome

VERSION = 1
# what a call has and a reported event has not
_CONSTANT: dict[str, Any] = {
    "service": "",
    "route": "",
    "method": "",
    "path": "",
    "status": 0,
    "outcome": Outcome.REPORTED.value,
    "units": 0,
    "bytes_in": 0,
    "bytes_out": 0,
    "latency_ms": 0,
    "gateway_ms": 0,
    "upstream_ms": -1,
    "client_ip": "",
    "emitter": "",
    "call_number": 0,
    "flags": (),
    "shipper": "",
}


class _Payload(msgspec.Struct, frozen=True):
    version: int
    ingested_at_ms: int
    columns: dict[str, list[Any]]


class UnknownPayloadError(Exception):
    """Written by a newer version of this program."""


_decoder = msgspec.json.Decoder(_Payload)


def hour_of(event: PlacedEvent) -> HourKey:
    """Return the hour in which the event counts."""
    return HourKey(event.account_id, event.at_ms - event.at_ms % HOUR_MS)


def encode(
    events: Sequence[PlacedEvent], *, endpoints: EndpointNames, default_days: int, ingested_at_ms: int
) -> bytes:
    """Return events as bytes that say all that the store is to hold: what is stored is decided here, once.

    An event that names no endpoint stands under its type in figures by endpoint. `default_days`: how long events
    are kept where their plan promises no longer.
    """
    columns: dict[str, list[Any]] = {
        "event_id": [placed.event.event_id for placed in events],
        "request_id": [placed.event.id for placed in events],
        "occurred_at": [placed.at_ms for placed in events],
        "account_id": [placed.account_id for placed in events],
        "key_id": [placed.key_id for placed in events],
        "mode": [placed.mode.value for placed in events],
        "product": [placed.product for placed in events],
        "endpoint": [
            endpoints.name(placed.product, "", placed.event.endpoint or placed.event.type, "") for placed in events
        ],
        "dimensions": [dict(placed.event.units) for placed in events],
        "subscription_id": [placed.subscription_id for placed in events],
        "plan": [placed.plan for placed in events],
        "retention_days": [
            retention_days(default_days=default_days, plan_days=placed.plan_days) for placed in events
        ],
        "source": [placed.event.source for placed in events],
        "event_type": [placed.event.type for placed in events],
        "properties": [dict(placed.event.properties) for placed in events],
    }
    return zlib.compress(msgspec.json.encode(_Payload(VERSION, ingested_at_ms, columns)), 1)


def decode(payload: bytes) -> EventColumns:
    """Return the events as columns of the store, with their hours.

    Raises:
        UnknownPayloadError: a newer version wrote it; that one must deliver it.
    """
    found = _decoder.decode(zlib.decompress(payload))
    if found.version != VERSION:
        raise UnknownPayloadError(f"a batch of version {found.version}, ours is {VERSION}")
    count = len(found.columns["event_id"])
    columns: dict[str, Sequence[Any]] = {name: [value] * count for name, value in _CONSTANT.items()}
    columns |= found.columns | {"ingested_at": [found.ingested_at_ms] * count}
    hours = {
        HourKey(account_id, at_ms - at_ms % HOUR_MS)
        for account_id, at_ms in zip(columns["account_id"], columns["occurred_at"], strict=True)
    }
    return EventColumns(columns, hours)
