"""The gate: decides calls. Knows records, limits and what holds while Redis is away; knows nothing of Kong.

What the records demand to know of a request (method, address, route) is asked through `Request`, and only then.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

import gevent

from gateway_contract.outcomes import Outcome
from gateway_contract.records import READ_ONLY_METHODS
from kong_plugins.parts.attachment import Attachment
from kong_plugins.parts.callers import Caller, build_caller, is_address_allowed
from kong_plugins.parts.decisions import Admitted, Decision, LimitState, Refused
from kong_plugins.parts.limit_script import ADMITTED, REFUSED, ask_limit_script
from kong_plugins.parts.local_windows import LocalWindows
from kong_plugins.parts.presented_key import is_well_formed, key_hash_of
from kong_plugins.parts.record_cache import KnownKey, Missing, RecordCache
from kong_plugins.parts.redis_clock import RedisClock
from kong_plugins.parts.redis_connection import RedisLinkError
from kong_plugins.parts.redis_links import Link
from kong_plugins.parts.spool_guard import SpoolGuard
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

# nobody is refused on records read longer ago than this without looking again
REFUSE_ON_SECONDS = 1.0
# a change that is just being projected shows for a moment as `stale`; then nobody can decide
STALE_PAUSES_SECONDS = (0.0, 0.01, 0.05, 0.0)
MOST_CALLERS = 64

_stale = metrics.counter(
    "km_gateway_stale_records_total", help_text="script answers that said our records are old"
)
_local = metrics.counter("km_gateway_local_decisions_total", help_text="calls decided without Redis")


class LimitScriptError(Exception):
    """The limit script's answer makes no sense: the script and this code do not belong together."""


class Request(Protocol):
    """What may be asked about the request."""

    def method(self) -> str: ...

    def address(self) -> str: ...

    def route_name(self) -> str: ...

    def use_sandbox(self, upstream: str) -> bool:
        """Send the request to that upstream instead; False where there is none of that name."""
        ...


class Gate:
    """One for each worker, shared by all attached plugins.

    `news_confirm` is given when a record was last confirmed and returns a later moment where the invalidation
    channel has shown since that nothing changed.
    """

    def __init__(
        self,
        *,
        link: Link,
        cache: RecordCache,
        clock: RedisClock,
        stale_max_seconds: float,
        news_confirm: Callable[[float], float] = float,
        spool: SpoolGuard,
    ) -> None:
        self._link = link
        self._cache = cache
        self._clock = clock
        self._stale_max_seconds = stale_max_seconds
        self._news_confirm = news_confirm
        self._spool = spool
        self._local = LocalWindows()

    def decide(self, text: str, attachment: Attachment, request: Request) -> Decision:
        """Identify the caller, judge the request, then consume all its limits or none of them."""
        found = self._identify(text)
        if not isinstance(found, KnownKey):
            return Refused(found)
        return self._go_on(found, attachment, request, self._consume)

    def authenticate(self, text: str, attachment: Attachment, request: Request) -> Decision:
        """Identify the caller and judge the request; consumes nothing (call number 0)."""
        found = self._identify(text)
        if not isinstance(found, KnownKey):
            return Refused(found)
        return self._go_on(found, attachment, request, self._confirm)

    def limit(self, key_hash: str, attachment: Attachment, request: Request) -> Decision:
        """Consume all limits, or none, of a caller who was identified before."""
        found = self._cache.knows(key_hash) or self._cache.read(key_hash)
        if isinstance(found, Missing):
            return Refused(_OUTCOMES_OF_MISSING[found])
        return self._go_on(found, attachment, request, self._consume)

    def _go_on(
        self,
        known: KnownKey,
        attachment: Attachment,
        request: Request,
        step: Callable[[Caller], Decision | None],
    ) -> Decision:
        """Judge, then take the step; again with records read anew where it says that these are old."""
        caller = self._judge_freshly(known, attachment, request)
        for pause in STALE_PAUSES_SECONDS:
            if not isinstance(caller, Caller):
                return caller
            decision = step(caller)
            if decision is not None:
                return decision
            _stale.inc()
            if pause:
                gevent.sleep(pause)
            caller = self._judge_again(caller.known, attachment, request)
        return Refused(Outcome.UNAVAILABLE)

    def _consume(self, caller: Caller) -> Decision | None:
        """Run the limit script; None where it says that the records are old."""
        if self._spool.trouble and self._spool.refuses():
            return Refused(Outcome.UNAVAILABLE)
        try:
            answer = ask_limit_script(self._link, caller.command, caller.slot)
        except RedisLinkError as error:
            return self._decide_alone(caller, error)
        heard_at = time.monotonic()
        self._clock.heard(answer[1], monotonic=heard_at)
        if answer[0] == ADMITTED:
            caller.known.confirmed_at = heard_at
            _, now_ms, number, tightest, remaining, reset_ms = answer
            limit = caller.limits[tightest - 1] if tightest else None
            return Admitted(
                caller, number, now_ms, None if limit is None else LimitState(limit, remaining, reset_ms)
            )
        if answer[0] == REFUSED:
            caller.known.confirmed_at = heard_at
            return _refused_by_limit(caller, answer)
        return None

    def _confirm(self, caller: Caller) -> Decision | None:
        """Compare versions only; None where the records are old."""
        try:
            account, key = self._link.ask_one(caller.versions_command, caller.slot)
        except RedisLinkError as error:
            log.debug("deciding without Redis: %s", error)
            now_ms = self._clock.now_ms()
            return Admitted(caller, 0, now_ms, None) if self._is_usable(caller) else Refused(Outcome.UNAVAILABLE)
        if account is None or key is None:
            return None
        if int(account) > caller.account.version or int(key) > caller.key.version:
            return None
        caller.known.confirmed_at = time.monotonic()
        return Admitted(caller, 0, self._clock.now_ms(), None)

    def _identify(self, text: str) -> KnownKey | Outcome:
        key_hash = key_hash_of(text)
        if key_hash is None:
            return Outcome.MALFORMED_KEY
        found = self._cache.knows(key_hash)
        if found is None:
            # only well-formed keys are ever looked up, so only a key that is not known needs the checksum
            if not is_well_formed(text):
                return Outcome.MALFORMED_KEY
            found = self._cache.read(key_hash)
        return _OUTCOMES_OF_MISSING[found] if isinstance(found, Missing) else found

    def _judge_freshly(self, known: KnownKey, attachment: Attachment, request: Request) -> Caller | Refused:
        """Return the caller who may go on to the limits. Nobody is refused on old records."""
        caller = self._caller(known, attachment, request)
        if caller is None:
            return self._judge_again(known, attachment, request)
        if caller.passes:
            return caller
        refused = self._judge(caller, request)
        if refused is None:
            return caller
        if time.monotonic() - known.read_at < REFUSE_ON_SECONDS:
            return refused
        again = self._judge_again(known, attachment, request)
        # while nothing can be read, what was known of a refused key still holds
        return refused if isinstance(again, Refused) and again.outcome is Outcome.UNAVAILABLE else again

    def _judge_again(self, known: KnownKey, attachment: Attachment, request: Request) -> Caller | Refused:
        """Read the records once more and judge by them."""
        found = self._cache.read(known.key_hash)
        if isinstance(found, Missing):
            return Refused(_OUTCOMES_OF_MISSING[found])
        caller = self._caller(found, attachment, request)
        if caller is None:
            return Refused(Outcome.UNAVAILABLE)
        return self._judge(caller, request) or caller

    def _judge(self, caller: Caller, request: Request) -> Refused | None:
        outcome, key = caller.refusal, caller.key
        now_ms = self._clock.now_ms()
        if outcome is None and key.expires_at_ms is not None and now_ms >= key.expires_at_ms:
            outcome = Outcome.KEY_EXPIRED
        if outcome is None and caller.read_only and request.method() not in READ_ONLY_METHODS:
            outcome = Outcome.SCOPE_MISSING
        if outcome is None and caller.networks and not is_address_allowed(caller, request.address()):
            outcome = Outcome.IP_NOT_ALLOWED
        if outcome is None and caller.sandbox and not request.use_sandbox(caller.sandbox):
            outcome = Outcome.NO_SANDBOX
        return None if outcome is None else Refused(outcome, caller, now_ms)

    def _caller(self, known: KnownKey, attachment: Attachment, request: Request) -> Caller | None:
        """Return the caller, worked out once for each reading of the records; None where they must be read."""
        caller: Caller | None = known.callers.get(attachment)
        if caller is not None and not caller.known_account.replaced:
            return caller
        account = self._cache.current_account(known)
        if account is None:
            return None
        place, route_name = attachment.place(account.record, request)
        caller_there: Caller | None = known.callers.get(place)
        if caller_there is not None and caller_there.known_account is account:
            return caller_there
        if len(known.callers) >= MOST_CALLERS:
            known.callers.clear()
        try:
            built = known.callers[place] = build_caller(known, account, attachment.config, route_name)
        except ValueError:
            log.exception("key record %s cannot be used", known.record.id)
            return None
        return built

    def _decide_alone(self, caller: Caller, error: RedisLinkError) -> Decision:
        """Decide without Redis: by the plan's policy, on records that are not too old."""
        _local.inc()
        log.debug("deciding without Redis: %s", error)
        if not (caller.open_while_away and self._is_usable(caller)):
            return Refused(Outcome.UNAVAILABLE)
        now_ms = self._clock.now_ms()
        hit = self._local.take(caller.windows, now_ms=now_ms)
        if hit is None:
            return Admitted(caller, 0, now_ms, None)
        limit, wait_ms = hit
        return Refused(Outcome.RATE_LIMITED, caller, now_ms, LimitState(limit, 0, wait_ms))

    def _is_usable(self, caller: Caller) -> bool:
        """Say whether the caller's records may still be gone by while Redis is away."""
        return time.monotonic() <= self._news_confirm(caller.known.confirmed_at) + self._stale_max_seconds


def _refused_by_limit(caller: Caller, answer: list[int]) -> Refused:
    _, now_ms, number, remaining, wait_ms = answer
    limit = caller.limits[number - 1]
    if limit is None:
        raise LimitScriptError(f"the limit script named limit {number}, which the caller does not have")
    outcome = Outcome.QUOTA_EXCEEDED if limit.window_ms is None else Outcome.RATE_LIMITED
    return Refused(outcome, caller, now_ms, LimitState(limit, remaining, wait_ms))


_OUTCOMES_OF_MISSING = {Missing.UNKNOWN: Outcome.UNKNOWN_KEY, Missing.UNAVAILABLE: Outcome.UNAVAILABLE}
