"""From the inbox to effects: the object of each event is read again and applied, whatever the order of events.

One object is in one hand at a time (an advisory lock), different objects side by side. An object that fails is
tried again after pauses that grow from a second to hours, while all others go on; at last its events are dead.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import utc_now
from control_plane.foundation.errors import KmError
from control_plane.foundation.rounds import Wake, repeat, sleep_unless
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.effects import Effect, NotYetError, handling
from control_plane.stripe_sync.events import metrics
from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.claims import (
    Claimed,
    ObjectRef,
    claim,
    due_objects,
    finish,
    give_up,
    put_back,
)
from control_plane.stripe_sync.events.model import MAX_ATTEMPTS, REFUSED_ATTEMPTS, State, pause_after
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeKeyRefused, StripeRefused, StripeUnavailable

Apply = Callable[[StripeContext, str], Awaitable[Effect | None]]
"""Reads one object at Stripe and writes what it says; see `effects`."""

Appliers = Mapping[Kind, Apply]

NOT_OURS = "the object is not this installation's"
WHILE_AWAY = timedelta(seconds=5)
WHILE_KEY_IS_REFUSED = timedelta(minutes=1)
LOCKED_SECONDS = 0.5
FAILED_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingConfig:
    """How many objects are read side by side, and how long one may take."""

    at_once: int = 4
    pause_seconds: float = 0.5
    attempt_seconds: float = 120.0


class Processor:
    """Keeps its hands full: an object that hangs takes one hand, and holds up nothing else."""

    def __init__(
        self,
        context: StripeContext,
        appliers: Appliers,
        *,
        config: ProcessingConfig,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._context = context
        self._appliers = appliers
        self._config = config
        self._clock = clock
        self._wake = Wake()
        self._running: dict[ObjectRef, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Act on events until `stop`; what is in hand then is finished."""
        round_until_stop = partial(self._fill_hands, stop)
        failures = metrics.FAILURES.labels("processing")
        try:
            await repeat("stripe-events", round_until_stop, stop=stop, failures=failures, wake=self._wake)
        finally:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _fill_hands(self, stop: asyncio.Event) -> float:
        free = self._config.at_once - len(self._running)
        if not free:
            return self._config.pause_seconds
        async with self._context.sessions() as session:
            due = await due_objects(session, now=self._clock(), limit=free, besides=self._running)
        for ref in due:
            task = asyncio.create_task(self._work(ref, stop))
            self._running[ref] = task
            task.add_done_callback(partial(self._put_down, ref))
        return self._config.pause_seconds

    async def _work(self, ref: ObjectRef, stop: asyncio.Event) -> None:
        try:
            mine = await process_object(self._context, self._appliers, ref, config=self._config, clock=self._clock)
        except Exception as error:  # noqa: BLE001 - the database, most likely: the claim runs out by itself
            metrics.FAILURES.labels("processing").inc()
            await log.awarning("stripe_object_left", kind=ref.kind, object=ref.object_id, exc_info=error)
            await sleep_unless(stop, FAILED_SECONDS)
            return
        if not mine:
            await sleep_unless(stop, LOCKED_SECONDS)

    def _put_down(self, ref: ObjectRef, _task: asyncio.Task[None]) -> None:
        del self._running[ref]
        self._wake.set()


async def process_due(
    context: StripeContext,
    appliers: Appliers,
    *,
    config: ProcessingConfig | None = None,
    limit: int = 1000,
) -> int:
    """Act once on every object that is due at the context's moment, one after the other; returns how many."""
    async with context.sessions() as session:
        due = await due_objects(session, now=context.now, limit=limit)
    for ref in due:
        await process_object(
            context, appliers, ref, config=config or ProcessingConfig(), clock=lambda: context.now
        )
    return len(due)


async def process_object(
    context: StripeContext,
    appliers: Appliers,
    ref: ObjectRef,
    *,
    config: ProcessingConfig,
    clock: Callable[[], datetime],
) -> bool:
    """Read and apply one object for all events that wait for it; False where another process has it in hand."""
    async with sole_worker(context.sessions, lock_key(ref)) as mine:
        if not mine:
            return False
        now = clock()
        async with context.sessions() as session, session.begin():
            claimed = await claim(session, ref, now=now)
        if claimed is None:
            return True
        try:
            async with asyncio.timeout(config.attempt_seconds):
                effect = await _apply(context.at(now), appliers, claimed)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is noted, and others go on
            await _settle_failure(context, claimed, error, now=clock())
        else:
            await _settle(context, claimed, effect, now=clock())
        return True


def lock_key(ref: ObjectRef) -> int:
    """Return the number of the object's advisory lock: the same in every process."""
    digest = hashlib.sha256(f"stripe event {ref.kind} {ref.object_id}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def _apply(context: StripeContext, appliers: Appliers, claimed: Claimed) -> Effect:
    async def mark(session: AsyncSession) -> None:
        await finish(session, claimed, state=State.DONE, reason="", now=context.now)

    with handling(mark):
        effect = await appliers[claimed.ref.kind](context, claimed.ref.object_id)
    return effect or Effect.APPLIED


async def _settle(context: StripeContext, claimed: Claimed, effect: Effect, *, now: datetime) -> None:
    state, reason = (State.DONE, "") if effect is Effect.APPLIED else (State.IGNORED, NOT_OURS)
    async with context.sessions() as session, session.begin():
        await finish(session, claimed, state=state, reason=reason, now=now)
    metrics.EVENTS.labels(claimed.ref.kind, state).inc(len(claimed.attempts))
    metrics.SECONDS.observe(max(0.0, (now - claimed.received_at).total_seconds()))
    await log.ainfo(
        "stripe_object_read",
        kind=claimed.ref.kind,
        object=claimed.ref.object_id,
        effect=effect,
        events=len(claimed.attempts),
    )


async def _settle_failure(context: StripeContext, claimed: Claimed, error: Exception, *, now: datetime) -> None:
    """Have the events wait for their next attempt, or give them up."""
    reason = _reason(error)
    if isinstance(error, StripeUnavailable):
        # not the object's fault, so it is not counted against it: Stripe may be away for a day
        pause = WHILE_KEY_IS_REFUSED if isinstance(error, StripeKeyRefused) else WHILE_AWAY
        async with context.sessions() as session, session.begin():
            await put_back(session, claimed, reason=reason, at=now + pause, counted=False)
        metrics.EVENTS.labels(claimed.ref.kind, "again").inc(len(claimed.attempts))
        await log.awarning("stripe_is_away", reason=reason)
        return
    most = REFUSED_ATTEMPTS if isinstance(error, StripeRefused) else MAX_ATTEMPTS
    dead = [event_id for event_id, attempts in claimed.attempts.items() if attempts >= most]
    left = [attempts for attempts in claimed.attempts.values() if attempts < most]
    async with context.sessions() as session, session.begin():
        # the event that was tried least says when to try again
        at = now + pause_after(min(left or claimed.attempts.values()))
        await put_back(session, claimed, reason=reason, at=at)
        await give_up(session, claimed, ids=dead, reason=reason)
    metrics.EVENTS.labels(claimed.ref.kind, "again").inc(len(left))
    metrics.EVENTS.labels(claimed.ref.kind, "dead").inc(len(dead))
    told = {"kind": claimed.ref.kind, "object": claimed.ref.object_id, "reason": reason, "dead": len(dead)}
    if isinstance(error, NotYetError | KmError):
        await log.awarning("stripe_object_not_applied", **told)
    else:
        await log.aerror("stripe_object_failed", **told, exc_info=error)


def _reason(error: Exception) -> str:
    """Return why, for operators: our own sentences; of a failure nobody foresaw its name, the log has the rest."""
    if isinstance(error, KmError):
        return error.message
    if isinstance(error, NotYetError):
        return str(error) or "what it belongs to is not there yet"
    if isinstance(error, TimeoutError):
        return "it took too long"
    return f"it failed: {type(error).__name__} (the server's log says more)"
