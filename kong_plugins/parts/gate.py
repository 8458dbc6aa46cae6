"""The gate: decides calls. Knows records, and who may do what by them; knows nothing of Kong.

What the records demand to know of a request (method, address, route) is asked through `Request`, and only then.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from gateway_contract.outcomes import Outcome
from kong_plugins.parts.attachment import Attachment
from kong_plugins.parts.bounded_map import BoundedMap
from kong_plugins.parts.callers import Caller, build_caller, build_unusable_caller, is_address_allowed
from kong_plugins.parts.decisions import Decision, Refused
from kong_plugins.parts.key_flood import KeyFlood
from kong_plugins.parts.limiter import REFUSE_ON_SECONDS, Limiter
from kong_plugins.parts.presented_key import PresentedKey, is_well_formed, key_hash_of
from kong_plugins.parts.record_cache import KnownKey, Missing, RecordCache
from kong_plugins.parts.redis_clock import RedisClock
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

# a change that is just being projected shows for a moment as `stale`; then nobody can decide
STALE_PAUSES_SECONDS = (0.0, 0.01, 0.05, 0.0)
MOST_CALLERS = 64
MOST_COMPLAINTS = 1000

_stale = metrics.counter(
    "km_gateway_stale_records_total", help_text="script answers that said our records are old"
)


class Request(Protocol):
    """What may be asked about the request."""

    def method(self) -> str: ...

    def address(self) -> str: ...

    def route_name(self) -> str: ...

    def use_sandbox(self, upstream: str) -> bool:
        """Send the request to that upstream instead; False where there is none of that name."""
        ...


class Gate:
    """One for each worker, shared by all attached plugins."""

    def __init__(
        self,
        *,
        cache: RecordCache,
        clock: RedisClock,
        limiter: Limiter,
        flood: KeyFlood,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._limiter = limiter
        self._flood = flood
        # what was logged already of records that cannot be used
        self._complaints: BoundedMap[tuple[Any, ...], bool] = BoundedMap(MOST_COMPLAINTS)

    def decide(self, presented: PresentedKey | Outcome, attachment: Attachment, request: Request) -> Decision:
        """Identify the caller, judge the request, then consume all its limits or none of them."""
        found = self._identify(presented, attachment, request)
        if not isinstance(found, KnownKey):
            return Refused(found)
        return self._go_on(found, attachment, request, self._limiter.consume)

    def authenticate(
        self, presented: PresentedKey | Outcome, attachment: Attachment, request: Request
    ) -> Decision:
        """Identify the caller and judge the request; consumes nothing (call number 0)."""
        found = self._identify(presented, attachment, request)
        if not isinstance(found, KnownKey):
            return Refused(found)
        return self._go_on(found, attachment, request, self._limiter.confirm)

    def limit(self, key_hash: str, attachment: Attachment, request: Request) -> Decision:
        """Consume all limits, or none, of a caller who was identified before."""
        found = self._cache.knows(key_hash) or self._cache.read(key_hash)
        if isinstance(found, Missing):
            return Refused(_OUTCOMES_OF_MISSING[found])
        return self._go_on(found, attachment, request, self._limiter.consume)

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

    def _identify(
        self, presented: PresentedKey | Outcome, attachment: Attachment, request: Request
    ) -> KnownKey | Outcome:
        config = attachment.config
        if isinstance(presented, Outcome):
            return self._anonymous(config.anonymous) if presented is Outcome.NO_KEY else presented
        key_hash = key_hash_of(presented.text, imported_keys=config.imported_keys)
        if key_hash is None:
            return Outcome.MALFORMED_KEY
        found = self._cache.knows(key_hash)
        if found is None:
            # only well-formed keys are ever looked up, so only a key that is not known needs the checksum
            if not is_well_formed(presented.text):
                return Outcome.MALFORMED_KEY
            found = self._flood.look_up(key_hash, read=self._cache.read, address=request.address)
        return _OUTCOMES_OF_MISSING[found] if isinstance(found, Missing) else found

    def _anonymous(self, key_hash: str) -> KnownKey | Outcome:
        """Return the key of calls without one, where there is such a fallback."""
        if not key_hash:
            return Outcome.NO_KEY
        found = self._cache.knows(key_hash) or self._cache.read(key_hash)
        if found is Missing.UNKNOWN:
            log.error("the key named in `anonymous` does not exist: calls without a key are refused")
            return Outcome.NO_KEY
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
        scopes: tuple[str, ...] = ()
        if outcome is None and caller.scope_rule is not None:
            rule = caller.scope_rule
            scopes = rule.missing_for(request.method() if rule.depends_on_method else "")
            outcome = Outcome.SCOPE_MISSING if scopes else None
        if outcome is None and caller.networks and not is_address_allowed(caller, request.address()):
            outcome = Outcome.IP_NOT_ALLOWED
        if outcome is None and caller.sandbox and not request.use_sandbox(caller.sandbox):
            outcome = Outcome.NO_SANDBOX
        return None if outcome is None else Refused(outcome, caller, now_ms, scopes=scopes)

    def _caller(self, known: KnownKey, attachment: Attachment, request: Request) -> Caller | None:
        """Return the caller, worked out once for each reading of the records; None where they must be read."""
        caller: Caller | None = known.callers.get(attachment)
        if caller is not None and not caller.known_account.replaced and not self._is_outside(caller):
            return caller
        account = self._cache.current_account(known)
        if account is None:
            return None
        place, route_name = attachment.place(account.record, request)
        caller_there: Caller | None = known.callers.get(place)
        if (
            caller_there is not None
            and caller_there.known_account is account
            and not self._is_outside(caller_there)
        ):
            return caller_there
        if len(known.callers) >= MOST_CALLERS:
            known.callers.clear()
        try:
            built = build_caller(known, account, attachment.config, route_name, now_ms=self._clock.now_ms())
        except ValueError as error:
            self._complain((known.record.id, known.record.version, account.record.version, place), error)
            built = build_unusable_caller(known, account, attachment.config)
        known.callers[place] = built
        return built

    def _is_outside(self, caller: Caller) -> bool:
        return caller.until_ms != 0 and not caller.from_ms <= self._clock.now_ms() < caller.until_ms

    def _complain(self, subject: tuple[Any, ...], error: ValueError) -> None:
        """Log the error, once for each version of the records and place."""
        if self._complaints.get(subject) is None:
            self._complaints.put(subject, True)
            log.error("key record %s cannot be used", subject[0], exc_info=error)


_OUTCOMES_OF_MISSING = {Missing.UNKNOWN: Outcome.UNKNOWN_KEY, Missing.UNAVAILABLE: Outcome.UNAVAILABLE}
