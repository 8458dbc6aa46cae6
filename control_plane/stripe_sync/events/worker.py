"""The inbox's workers: acting on events, the nightly reading of Stripe's lists, and forgetting."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.stripe_sync.events import metrics
from control_plane.stripe_sync.events.inbox import KEEP_IGNORED, forget_bodies, forget_ignored
from control_plane.stripe_sync.events.listing import LISTS, read_lists
from control_plane.stripe_sync.events.processing import Appliers, ProcessingConfig, Processor
from control_plane.stripe_sync.events.queries import inbox_standing
from control_plane.stripe_sync.events.tables import StripeEventReads
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeRefused, StripeUnavailable

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsConfig:
    """How long bodies are kept, and how often Stripe's own lists of events are read.

    `lag`: younger events are left to their webhooks. Without a secret there are no webhooks: `polled` reads the
    lists every few minutes instead, to the present.
    """

    keep_bodies: timedelta = timedelta(days=30)
    lists_every: timedelta = timedelta(days=1)
    lag: timedelta = timedelta(minutes=15)
    pause_seconds: float = 15.0
    list_retry_seconds: float = 300.0
    at_once: int = 5_000
    processing: ProcessingConfig = field(default_factory=ProcessingConfig)

    def polled(self) -> "EventsConfig":
        """Return the same for an installation without webhooks: a few requests every five minutes."""
        return replace(self, lists_every=timedelta(minutes=5), lag=timedelta(0))


async def run_events(
    context: StripeContext,
    appliers: Appliers,
    *,
    config: EventsConfig,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Act on events, read Stripe's lists and forget what is old, until `stop`."""
    processor = Processor(context, appliers, config=config.processing, clock=clock)

    async def lists() -> float:
        try:
            await read_if_due(context.at(clock()), config=config)
        except (StripeRefused, StripeUnavailable) as error:
            # not again at once: what Stripe does not let us read today it will hardly let us read in a second
            metrics.FAILURES.labels("lists").inc()
            log.warning("a list of Stripe's events cannot be read", problem=error.message)
            return config.list_retry_seconds
        return config.pause_seconds

    async def housekeeping() -> float:
        return await keep_house(context.at(clock()), config=config)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(processor.run(stop))
        failures = metrics.FAILURES.labels
        tasks.create_task(repeat("stripe-lists", lists, stop=stop, failures=failures("lists")))
        tasks.create_task(repeat("stripe-inbox", housekeeping, stop=stop, failures=failures("housekeeping")))


async def read_if_due(context: StripeContext, *, config: EventsConfig) -> bool:
    """Read those of Stripe's lists that were last read too long ago; False where it is not time for any.

    Raises:
        StripeRefused, StripeUnavailable: a list could not be read, the others were.
    """
    async with context.sessions() as session:
        rows = await session.execute(select(StripeEventReads.name, StripeEventReads.finished_at))
        finished = {name: finished_at for name, finished_at in rows if finished_at is not None}
    due = [name for name in LISTS if name not in finished or context.now - finished[name] >= config.lists_every]
    if due:
        await read_lists(context, lag=config.lag, names=due)
    return bool(due)


async def keep_house(context: StripeContext, *, config: EventsConfig) -> float:
    """Forget one batch of what is old, and tell how the inbox stands; returns how long to pause."""
    async with context.sessions() as session, session.begin():
        bodies = await forget_bodies(session, before=context.now - config.keep_bodies, limit=config.at_once)
        ignored = await forget_ignored(session, before=context.now - KEEP_IGNORED, limit=config.at_once)
    async with context.sessions() as session:
        standing = await inbox_standing(session)
    metrics.WAITING.set(standing.waiting)
    metrics.DEAD.set(standing.dead)
    oldest = standing.oldest_received_at
    metrics.OLDEST.set(0 if oldest is None else max(0.0, (context.now - oldest).total_seconds()))
    return 0 if config.at_once in (bodies, ignored) else config.pause_seconds
