"""How many events a token may send: an allowance in Redis that all processes share.

While Redis is away each process goes by itself: ingest must not stand still for it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from redis.exceptions import NoScriptError, RedisError

from control_plane.foundation.redis import RedisClient
from control_plane.usage.ingest import metrics
from gateway_contract.redis_names import ingest_allowance

SCRIPT = Path(__file__).with_name("take_events.lua").read_text(encoding="utf-8")
# how long Redis is not asked after it failed: each question would cost its timeout
LEFT_ALONE_SECONDS = 2.0
MAX_LOCAL_TOKENS = 10_000
US = 1_000_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`events_per_second` on average, `burst_events` at once at most. 0 a second is no limit."""

    events_per_second: int
    burst_events: int

    @property
    def us_per_event(self) -> float:
        return US / self.events_per_second

    @property
    def window_seconds(self) -> int:
        """Return in how many seconds an empty allowance is full again, rounded up."""
        return -(-self.burst_events // self.events_per_second)


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether the events may come in, how many more could now, and after how long (0 if these may)."""

    allowed: bool
    left: int
    wait_seconds: float = 0.0


class RateLimiter:
    """Judges requests of tokens. `redis` must have a short timeout and never retry."""

    def __init__(
        self, redis: RedisClient, limit: RateLimit, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        self._redis = redis
        self._monotonic = monotonic
        self._sha = ""
        self._ask_again_at = 0.0
        self._full_at: dict[str, float] = {}

    async def take(self, token_id: str, events: int) -> Taken | None:
        """Take events out of the token's allowance, all or none; None where there is no limit.

        Raises nothing of Redis: then an allowance of this process alone decides.
        """
        if not self.limit.events_per_second:
            return None
        if self._monotonic() >= self._ask_again_at:
            try:
                return await self._ask_redis(token_id, events)
            except (RedisError, OSError) as error:
                self._ask_again_at = self._monotonic() + LEFT_ALONE_SECONDS
                log.warning("Redis is away: this process limits ingest by itself", error=repr(error))
        metrics.LOCAL_LIMITS.inc()
        return self._take_here(token_id, events)

    async def _ask_redis(self, token_id: str, events: int) -> Taken:
        arguments = (events, f"{self.limit.us_per_event:.6f}", self.limit.burst_events)
        name = ingest_allowance(token_id)
        try:
            answer = await self._redis.execute_command("EVALSHA", await self._loaded(), 1, name, *arguments)
        except NoScriptError:  # Redis was emptied, or another node has the slot now
            answer = await self._redis.execute_command("EVAL", SCRIPT, 1, name, *arguments)
        allowed, left, wait_us = (int(value) for value in answer)
        return Taken(bool(allowed), max(0, left), wait_us / US)

    async def _loaded(self) -> str:
        if not self._sha:
            self._sha = str(await self._redis.script_load(SCRIPT))
        return self._sha

    def _take_here(self, token_id: str, events: int) -> Taken:
        """Do what the script does, with this process's clock."""
        now, per_event, most = self._monotonic(), 1 / self.limit.events_per_second, self.limit.burst_events
        if len(self._full_at) > MAX_LOCAL_TOKENS:
            self._full_at = {token: at for token, at in self._full_at.items() if at > now}
        full_at = max(now, self._full_at.get(token_id, 0.0))
        after = full_at + events * per_event
        over = after - now - most * per_event
        if over > 0:
            return Taken(False, max(0, int(most - (full_at - now) / per_event)), over)
        self._full_at[token_id] = after
        return Taken(True, int(most - (after - now) / per_event))
