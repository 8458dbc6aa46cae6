"""A caller's limits: consumed by the limit script, or while Redis is away by what this worker knows."""

import logging
import time
from collections.abc import Callable

from gateway_contract.outcomes import Outcome
from kong_plugins.parts import redis_writes
from kong_plugins.parts.callers import Caller
from kong_plugins.parts.decisions import Admitted, Decision, LimitState, Refused
from kong_plugins.parts.limit_script import (
    ADMITTED,
    CALLS,
    NO_PERIOD,
    STALE,
    WOULD_REFUSE,
    ask_limit_script,
    is_over,
)
from kong_plugins.parts.local_windows import LocalWindows
from kong_plugins.parts.redis_clock import RedisClock
from kong_plugins.parts.redis_connection import RedisLinkError, RedisRefusedError
from kong_plugins.parts.redis_links import Link
from kong_plugins.parts.redis_writes import NodeWrites, build_probe
from kong_plugins.parts.spool_guard import SpoolGuard
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

# nobody is refused on records read longer ago than this without looking again
REFUSE_ON_SECONDS = 1.0

_local = metrics.counter("km_gateway_local_decisions_total", help_text="calls decided without Redis")


class LimitScriptError(Exception):
    """The limit script's answer makes no sense: the script and this code do not belong together."""


class Limiter:
    """One for each worker, shared by all attached plugins.

    `news_confirm` is given when a record was last confirmed and returns a later moment where the invalidation
    channel has shown since that nothing changed.
    """

    def __init__(
        self,
        *,
        link: Link,
        clock: RedisClock,
        stale_max_seconds: float,
        news_confirm: Callable[[float], float] = float,
        spool: SpoolGuard,
    ) -> None:
        self._link = link
        self._clock = clock
        self._stale_max_seconds = stale_max_seconds
        self._news_confirm = news_confirm
        self._spool = spool
        self._local = LocalWindows()

    def consume(self, caller: Caller) -> Decision | None:
        """Run the limit script; None where it says that the records are old.

        While Redis is away there are only this worker's windows: see `_refusal_alone`.
        """
        if self._spool.trouble and self._spool.refuses():
            return Refused(Outcome.UNAVAILABLE)
        try:
            answer = ask_limit_script(self._link, caller.command, caller.slot)
        except RedisLinkError as error:
            return self._decide_alone(caller, error)
        heard_at = time.monotonic()
        self._clock.heard(answer[1], monotonic=heard_at)
        if answer[0] == ADMITTED:
            self._link.writes(caller.slot).scripts_refused_since = None
            caller.known.confirmed_at = heard_at
            caller.used_up = None
            _, now_ms, number, tightest, remaining, reset_ms = answer
            limit = caller.limits[tightest - 1] if tightest else None
            return Admitted(
                caller, number, now_ms, None if limit is None else LimitState(limit, remaining, reset_ms)
            )
        if answer[0] == STALE:
            return _subscription_over(caller, answer) if answer[2] == NO_PERIOD else None
        caller.known.confirmed_at = heard_at
        if answer[0] == WOULD_REFUSE:
            self._link.writes(caller.slot).scripts_refused_since = None
            refused = _refused_by_limit(caller, now_ms=answer[1], hit=answer[3:])
            return _admitted_in_dry_run(caller, answer[2], refused)
        return _refused_by_limit(caller, now_ms=answer[1], hit=answer[2:])

    def confirm(self, caller: Caller) -> Decision | None:
        """Compare versions only; None where the records are old."""
        try:
            account, key = self._link.ask_one(caller.versions_command, caller.slot)
        except RedisLinkError as error:
            log.debug("deciding without Redis: %s", error)
            if not self._is_usable(caller, self._link.writes(caller.slot).probes_refused_since):
                return Refused(Outcome.UNAVAILABLE)
            return Admitted(caller, 0, self._clock.now_ms(), None)
        if account is None or key is None:
            return None
        if int(account) > caller.account.version or int(key) > caller.key.version:
            return None
        heard_at, writes = time.monotonic(), self._link.writes(caller.slot)
        if heard_at - writes.probed_at >= redis_writes.PROBE_SECONDS:
            self._probe(caller, writes, heard_at)
        if self._is_too_long(writes.probes_refused_since, heard_at):
            return Refused(Outcome.UNAVAILABLE)
        caller.known.confirmed_at = heard_at
        return Admitted(caller, 0, self._clock.now_ms(), None)

    def _probe(self, caller: Caller, writes: NodeWrites, now: float) -> None:
        """See whether Redis still writes: versions that nobody can raise are equal for ever."""
        writes.probed_at = now
        try:
            self._link.ask_one(build_probe(caller.account.id), caller.slot)
        except RedisRefusedError as error:
            # a gateway that may only read cannot tell
            if not str(error).startswith("NOPERM") and writes.probes_refused_since is None:
                writes.probes_refused_since = now
                log.warning("Redis refuses to write: %s", error)
        except RedisLinkError as error:
            log.debug("Redis went away: %s", error)
        else:
            writes.probes_refused_since = None

    def _decide_alone(self, caller: Caller, error: RedisLinkError) -> Decision:
        """Decide without Redis: by the plan's policy, on records that are not too old."""
        _local.inc()
        log.debug("deciding without Redis: %s", error)
        writes = self._link.writes(caller.slot)
        if isinstance(error, RedisRefusedError) and writes.scripts_refused_since is None:
            writes.scripts_refused_since = time.monotonic()
            log.warning("Redis refuses the limit script: %s", error)
        if not self._is_usable(caller, writes.scripts_refused_since):
            return Refused(Outcome.UNAVAILABLE)
        now_ms = self._clock.now_ms()
        refused = self._refusal_alone(caller, now_ms)
        if refused is None:
            return Admitted(caller, 0, now_ms, None)
        return _admitted_in_dry_run(caller, 0, refused) if caller.config.dry_run else refused

    def _refusal_alone(self, caller: Caller, now_ms: int) -> Refused | None:
        """Say what stands in the way by what this worker knows.

        Nothing under the policy `closed`. Else a quota or cap that was used up when Redis was last heard, and
        sliding windows of this worker alone: of each window, every worker admits at most the limit, beside what
        Redis had admitted before. Other quotas, caps and calls in flight cannot be counted here.
        """
        if not caller.open_while_away:
            return Refused(Outcome.UNAVAILABLE, caller, now_ms)
        if caller.used_up is not None and now_ms < caller.used_up[2]:
            limit, remaining, until_ms = caller.used_up
            return Refused(limit.outcome, caller, now_ms, LimitState(limit, remaining, until_ms - now_ms))
        hit = self._local.take(caller.windows, now_ms=int(time.monotonic() * 1000))
        if hit is None:
            return None
        return Refused(hit[0].outcome, caller, now_ms, LimitState(hit[0], 0, hit[1]))

    def _is_usable(self, caller: Caller, refused_since: float | None) -> bool:
        """Say whether the caller's records may still be gone by while Redis is away, or refuses since then.

        A Redis that refuses to write cannot be told of a revocation, however lately it has confirmed the records.
        """
        now = time.monotonic()
        if self._is_too_long(refused_since, now):
            return False
        return now <= self._news_confirm(caller.known.confirmed_at) + self._stale_max_seconds

    def _is_too_long(self, refused_since: float | None, now: float) -> bool:
        return refused_since is not None and now - refused_since > self._stale_max_seconds


def _refused_by_limit(caller: Caller, *, now_ms: int, hit: list[int]) -> Refused:
    number, remaining, wait_ms = hit
    limit = caller.limits[number - 1]
    if limit is None:
        raise LimitScriptError(f"the limit script named limit {number}, which the caller does not have")
    if limit.outcome is not Outcome.RATE_LIMITED:
        caller.used_up = limit, remaining, now_ms + wait_ms
    return Refused(limit.outcome, caller, now_ms, LimitState(limit, remaining, wait_ms))


def _admitted_in_dry_run(caller: Caller, call_number: int, refused: Refused) -> Admitted:
    """Let the call through that a limit would have refused. Headers show that limit where it is one of calls."""
    hit = refused.hit
    tightest = hit if hit is not None and hit.limit.quota_unit == CALLS else None
    return Admitted(caller, call_number, refused.decided_at_ms, tightest, refused)


def _subscription_over(caller: Caller, answer: list[int]) -> Refused | None:
    """Say what it means that no billing period of records of the newest version holds this moment.

    Where nothing writes records any more, a subscription that was cancelled still stands in them after its end.
    None where the records were not just read, or the next period may merely not have been written yet.
    """
    known_at, now_ms = caller.known_account.read_at, answer[1]
    if caller.grant is None or caller.grant.next is not None or not is_over(caller.grant.periods, now_ms):
        return None
    if time.monotonic() - known_at >= REFUSE_ON_SECONDS:
        return None
    return Refused(Outcome.NOT_SUBSCRIBED, caller, now_ms)
