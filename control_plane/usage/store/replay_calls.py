"""Reads the calls that decide which replays are billed. Blocking: the caller runs it in a thread."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from control_plane.usage.model import HourKey
from control_plane.usage.rollups.replays import CallGroup, CallKey
from control_plane.usage.store.events import EventStore, HourFigures, hour_parameters
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

CALLS_PER_QUERY = 1000
_STATEMENT = (resources.files("control_plane.usage.store") / "replay_calls.sql").read_text(encoding="utf-8")


def replay_calls(
    store: EventStore,
    *,
    hours: Sequence[HourKey],
    replay_hours: Sequence[HourKey],
    boundaries: Mapping[str, Sequence[int]],
) -> list[CallGroup]:
    """Return the served calls in `hours` that are of a kind with a replay in `replay_hours`, which are among them.

    `boundaries` cut hours as in `EventStore.hour_figures`.
    """
    return _read(store, hours, replay_hours, boundaries, {}) if replay_hours else []


def replays_after(
    store: EventStore,
    *,
    hours: Sequence[HourKey],
    after_ms: Mapping[CallKey, int],
    boundaries: Mapping[str, Sequence[int]],
) -> list[CallGroup]:
    """Return the replays of these calls in these hours, each after the moment given for it."""
    wanted = list(after_ms.items())
    found: list[CallGroup] = []
    for start in range(0, len(wanted), CALLS_PER_QUERY):
        found += _read(store, hours, hours, boundaries, dict(wanted[start : start + CALLS_PER_QUERY]))
    return found


def _read(
    store: EventStore,
    hours: Sequence[HourKey],
    replay_hours: Sequence[HourKey],
    boundaries: Mapping[str, Sequence[int]],
    after_ms: Mapping[CallKey, int],
) -> list[CallGroup]:
    parameters = {
        **hour_parameters(hours, boundaries),
        "replay_accounts": [key.account_id for key in replay_hours],
        "replay_hours": [key.hour_ms // 1000 for key in replay_hours],
        "call_hashes": [f"{key.account_id} {key.call_hash}" for key in after_ms],
        "after_ms": list(after_ms.values()),
    }
    return list(_groups(store.query(_STATEMENT, parameters)))


def _groups(rows: Sequence[Sequence[Any]]) -> Iterable[CallGroup]:
    for account_id, seconds, call_hash, is_replay, product, mode, status, part, last_ms, first_ms, first in rows:
        event_id, key_id, endpoint, units, bytes_in, bytes_out, latency, gateway, upstream, dimensions = first
        yield CallGroup(
            key=CallKey(account_id, call_hash),
            hour_ms=seconds * 1000,
            is_replay=bool(is_replay),
            first_ms=first_ms,
            first_event_id=event_id,
            last_ms=last_ms,
            first=HourFigures(
                account_id=account_id,
                hour_ms=seconds * 1000,
                product=product,
                mode=Mode(mode),
                key_id=key_id,
                endpoint=endpoint,
                status=status,
                outcome=Outcome.SERVED,
                part=part,
                calls=1,
                units=units,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                latency_ms=latency,
                gateway_ms=gateway,
                upstream_ms=upstream,
                dimensions=dimensions,
                replayed=bool(is_replay),
            ),
        )
