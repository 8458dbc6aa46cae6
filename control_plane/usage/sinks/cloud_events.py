"""Usage as CloudEvents 1.0 (https://github.com/cloudevents/spec, JSON format and batch). Pure.

Ids stay the same however often something is sent: (source, id) is what a receiver tells repetitions by. An hour
that changed after it was sealed is sent again whole, under its new revision (extension `hourrevision`): of the
same event the highest holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from control_plane.foundation.clock import from_ms
from gateway_contract.usage_events import UsageEvent

BATCH_TYPE = "application/cloudevents-batch+json; charset=utf-8"
EVENT_TYPE = "io.kong-monetize.usage.event.v1"
HOUR_TYPE = "io.kong-monetize.usage.hour.v1"
SOURCE = "/kong-monetize/usage"
_encode = msgspec.json.Encoder().encode


def cloud_event(event: UsageEvent, *, revision: int, voided: bool) -> dict[str, Any]:
    """Return one event. `voided`: somebody took it out of what is counted."""
    return _envelope(
        event_id=event.event_id,
        type_=EVENT_TYPE,
        subject=event.account_id,
        at=from_ms(event.occurred_at_ms),
        revision=revision,
        data={**event.as_dict(), "voided": voided},
    )


def cloud_hour(
    account_id: str, hour: datetime, *, revision: int, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return one account's hour with all its rows; it takes the place of every earlier revision."""
    start = _time(hour)
    return _envelope(
        event_id=f"{account_id}/{start}/{revision}",
        type_=HOUR_TYPE,
        subject=account_id,
        at=hour,
        revision=revision,
        data={"account_id": account_id, "hour": start, "revision": revision, "rows": list(rows)},
    )


def batches(
    envelopes: Iterable[Mapping[str, Any]], *, most_events: int, most_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Yield (events, body) in order. A body has more than `most_bytes` only if one event has."""
    pieces: list[bytes] = []
    size = 0
    for envelope in envelopes:
        piece = _encode(envelope)
        if pieces and (len(pieces) >= most_events or size + len(piece) > most_bytes):
            yield len(pieces), b"[" + b",".join(pieces) + b"]"
            pieces, size = [], 0
        pieces.append(piece)
        size += len(piece) + 1
    if pieces:
        yield len(pieces), b"[" + b",".join(pieces) + b"]"


def _envelope(
    *,
    event_id: str,
    type_: str,
    subject: str,
    at: datetime,
    revision: int,
    data: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": type_,
        "subject": subject,
        "time": _time(at),
        "datacontenttype": "application/json",
        "hourrevision": revision,
        "data": data,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
