"""Whether Redis holds a complete projection: the markers, and what servers they were written on.

Each bucket of key records has a marker beside it, so whoever loses the records loses the marker too. They are
written in order and all at once, so of each server only the last one it holds is looked at.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from control_plane.foundation.clock import from_ms
from control_plane.foundation.redis import RedisClient, last_name_on_each_server
from control_plane.gateway_sync.redis_scripts import Script, together
from gateway_contract.redis_names import KEY_BUCKETS, projection_marker, projection_sweep, slot_of

# A script holds Redis for about 2 us a bucket.
BUCKETS_PER_SCRIPT = 64
TOKEN_SECONDS = 86_400
_MARKERS = tuple((slot_of(name), name) for name in map(projection_marker, KEY_BUCKETS))


@dataclass(frozen=True, slots=True)
class Marker:
    """What a full projection leaves. `run_ids` are the servers': a new one was restarted, or has taken over."""

    run_ids: tuple[str, ...]
    completed_at_ms: int
    keys: int
    accounts: int

    @property
    def completed_at(self) -> datetime:
        return from_ms(self.completed_at_ms)


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """The servers that answer, and the oldest of their markers; None where one has none, or one we cannot read."""

    run_ids: tuple[str, ...]
    marker: Marker | None

    @property
    def complete(self) -> bool:
        """Whether these very servers were fully projected into, and have not been emptied since."""
        return self.marker is not None and set(self.run_ids) <= set(self.marker.run_ids)


async def read_state(client: RedisClient) -> ProjectionState:
    """Return the projection's state in one trip."""
    names = await last_name_on_each_server(client, _MARKERS)
    answers = await Script(client, "read_marker").run_each([([name], []) for name in names])
    markers = [_read_marker(text) for _, text in answers]
    known = [marker for marker in markers if marker is not None]
    return ProjectionState(
        run_ids=tuple(sorted({run_id for run_id, _ in answers})),
        marker=min(known, key=lambda marker: marker.completed_at_ms) if len(known) == len(markers) else None,
    )


async def begin_sweep(client: RedisClient, *, forget_marker: bool) -> str:
    """Set a new sweep token and return it; a sweep under an older token will not finish.

    With `forget_marker` unknown keys get 503 instead of 401 until the sweep is done: for a Redis whose content
    is in doubt.
    """
    token = secrets.token_hex(16)
    args = (token, TOKEN_SECONDS, "1" if forget_marker else "0")
    await Script(client, "begin_sweep").run_each([(keys, args) for keys in _names_by_script(client)])
    return token


async def finish_sweep(client: RedisClient, token: str, marker: Marker) -> bool:
    """Write the markers; False when a server was emptied, restarted, replaced or swept anew since the token."""
    state = await read_state(client)
    if state.run_ids != marker.run_ids:
        return False
    args = [token, json.dumps(asdict(marker))]
    answers = await Script(client, "finish_sweep").run_each([(keys, args) for keys in _names_by_script(client)])
    return all(answers)


def _names_by_script(client: RedisClient) -> Iterator[list[str]]:
    for buckets in together(client, KEY_BUCKETS, projection_marker, most=BUCKETS_PER_SCRIPT):
        yield [name for bucket in buckets for name in (projection_marker(bucket), projection_sweep(bucket))]


def _read_marker(text: str | None) -> Marker | None:
    try:
        value = json.loads(text or "")
        return Marker(
            run_ids=tuple(map(str, value["run_ids"])),
            completed_at_ms=int(value["completed_at_ms"]),
            keys=int(value["keys"]),
            accounts=int(value["accounts"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
