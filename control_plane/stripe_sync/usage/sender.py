"""Sends rows of usage until told to stop: many customers side by side, each customer's meter one after another."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import Wake, repeat
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.usage import metrics
from control_plane.stripe_sync.usage.asking import ask_stripe, write_down
from control_plane.stripe_sync.usage.looking import look
from control_plane.stripe_sync.usage.measuring import measure
from control_plane.stripe_sync.usage.queue import BEGINNING, Claimed, Only, claim
from control_plane.stripe_sync.usage.rows import Ask, Look

log = structlog.get_logger(__name__)

MEASURE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSenderConfig:
    """`at_once`: how many customers' meters are in hand side by side; `pause_seconds` when nothing is due."""

    at_once: int = 32
    pause_seconds: float = 1.0


class UsageSender:
    """Keeps its hands full: a customer whom Stripe is slow with takes one hand, and holds up nobody else."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        stripe: Stripe,
        *,
        config: UsageSenderConfig | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._sessions = sessions
        self._stripe = stripe
        self._config = config or UsageSenderConfig()
        self._clock = clock
        self._wake = Wake()
        self._running: set[asyncio.Task[None]] = set()
        self._after = BEGINNING
        self._idle_since_beginning = True

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; what is in hand then is finished."""
        try:
            await repeat(
                "stripe usage",
                self._fill_hands,
                stop=stop,
                failures=metrics.FAILURES.labels("claim"),
                wake=self._wake,
            )
        finally:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _fill_hands(self) -> float:
        free = self._config.at_once - len(self._running)
        if not free:
            return self._config.pause_seconds
        claimed = await claim_rows(self._sessions, self._stripe, now=self._clock(), limit=free, after=self._after)
        if self._after == BEGINNING:
            self._idle_since_beginning = True
        self._idle_since_beginning &= not (claimed.work or claimed.settled)
        self._after = claimed.after
        for one in claimed.work:
            task = asyncio.create_task(self._work(one))
            self._running.add(task)
            task.add_done_callback(self._put_down)
        all_seen = self._after == BEGINNING and self._idle_since_beginning
        return self._config.pause_seconds if all_seen else 0

    async def _work(self, one: Ask | Look) -> None:
        try:
            await handle(self._sessions, self._stripe, one, clock=self._clock)
        except Exception as error:  # noqa: BLE001 - the database, most likely: the lease runs out by itself
            metrics.FAILURES.labels("write").inc()
            log.warning("a row of usage was left as it is for a while", row=str(one.key), error=repr(error))

    def _put_down(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()


async def run_usage_sender(
    *,
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    stop: asyncio.Event,
    config: UsageSenderConfig | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Bring sealed usage to Stripe until `stop`. Failures are counted, logged and tried again."""
    sender = UsageSender(sessions, stripe, config=config, clock=clock)
    measuring = partial(_measure, sessions, clock)
    await asyncio.gather(
        sender.run(stop),
        repeat("stripe usage metrics", measuring, stop=stop, failures=metrics.FAILURES.labels("measure")),
    )


async def send_due(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    clock: Callable[[], datetime],
    only: Only | None = None,
    limit: int = 32,
) -> int:
    """Work off what is due until nothing is; returns how many rows were decided or asked about."""
    done, after = 0, BEGINNING
    found_any = False
    while True:
        claimed = await claim_rows(sessions, stripe, now=clock(), limit=limit, after=after, only=only)
        await asyncio.gather(*(handle(sessions, stripe, one, clock=clock) for one in claimed.work))
        found = len(claimed.work) + claimed.settled
        done += found
        found_any |= bool(found)
        after = claimed.after
        if after == BEGINNING:
            if not found_any:
                return done
            found_any = False


async def claim_rows(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    now: datetime,
    limit: int,
    after: tuple[str, str] = BEGINNING,
    only: Only | None = None,
) -> Claimed:
    """Take up rows, in a transaction of its own."""
    async with sessions() as session, session.begin():
        return await claim(
            session, installation=stripe.config.installation, now=now, limit=limit, after=after, only=only
        )


async def handle(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    one: Ask | Look,
    *,
    clock: Callable[[], datetime],
) -> None:
    """Ask Stripe about a row that was taken up, and put down what came of it."""
    if isinstance(one, Look):
        await look(sessions, stripe, one, now=clock())
    else:
        outcome = await ask_stripe(stripe, one)
        await write_down(sessions, one, outcome, now=clock())


async def _measure(sessions: async_sessionmaker[AsyncSession], clock: Callable[[], datetime]) -> float:
    async with sessions() as session:
        await measure(session, now=clock())
    return MEASURE_SECONDS
