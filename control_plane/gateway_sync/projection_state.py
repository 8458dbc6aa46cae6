"""Whether Redis holds a complete projection: the marker, and what server wrote it."""

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime

from redis.asyncio import Redis

from control_plane.foundation.clock import from_ms
from control_plane.gateway_sync.redis_scripts import load_script
from gateway_contract.redis_names import PROJECTION_MARKER, PROJECTION_SWEEP


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands in Redis after a full projection. `run_id` is the server's: a new one means it was restarted."""

    run_id: str
    completed_at_ms: int
    keys: int
    accounts: int

    @property
    def completed_at(self) -> datetime:
        return from_ms(self.completed_at_ms)


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """The server that answers, and its marker; None where there is none, or one we cannot read."""

    run_id: str
    marker: Marker | None

    @property
    def complete(self) -> bool:
        """Whether this very server was fully projected into, and has not been emptied since."""
        return self.marker is not None and self.marker.run_id == self.run_id


async def read_state(client: Redis) -> ProjectionState:
    """Return the projection's state in one trip."""
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.info("server")
        pipeline.get(PROJECTION_MARKER)
        info, text = await pipeline.execute()
    return ProjectionState(run_id=str(info["run_id"]), marker=_read_marker(text))


async def begin_sweep(client: Redis, *, forget_marker: bool) -> str:
    """Set a new sweep token and return it; a sweep under an older token will not finish.

    With `forget_marker` unknown keys get 503 instead of 401 until the sweep is done: for a Redis whose content
    is in doubt.
    """
    token = secrets.token_hex(16)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.set(PROJECTION_SWEEP, token)
        if forget_marker:
            pipeline.delete(PROJECTION_MARKER)
        await pipeline.execute()
    return token


async def finish_sweep(client: Redis, token: str, marker: Marker) -> bool:
    """Write the marker; False when Redis was emptied, restarted or swept anew since the token was set."""
    state = await read_state(client)
    if state.run_id != marker.run_id:
        return False
    script = load_script(client, "finish_sweep")
    return bool(await script(keys=[PROJECTION_MARKER, PROJECTION_SWEEP], args=[token, json.dumps(asdict(marker))]))


def _read_marker(text: str | None) -> Marker | None:
    try:
        value = json.loads(text or "")
        return Marker(
            run_id=str(value["run_id"]),
            completed_at_ms=int(value["completed_at_ms"]),
            keys=int(value["keys"]),
            accounts=int(value["accounts"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
