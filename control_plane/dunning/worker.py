"""Opens cases, takes their steps and closes them, until it is stopped. Any number of processes may do so.

It looks at the subscriptions themselves, so whatever made one past due, and whenever this ran last, is found.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.dunning import metrics
from control_plane.dunning.cases import open_case, take_step
from control_plane.dunning.confirmations import LOOK_BACK, tell_of_confirmations
from control_plane.dunning.model import CaseState, DunningConfig
from control_plane.dunning.queries import due_cases, open_by_state, without_case
from control_plane.dunning.trials import tell_of_trials
from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat

log = structlog.get_logger(__name__)

SELDOM_SECONDS = 30.0
FAILED_PAUSE_SECONDS = 60.0
OPEN_STATES = (CaseState.GRACE, CaseState.BLOCKED, CaseState.FALLEN_BACK)


async def run_dunning(
    *,
    config: DunningConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Look after unpaid subscriptions until `stop`. Failures are counted and tried again."""
    looked_seldom_at: float | None = None
    failing: dict[str, float] = {}

    async def one_round() -> float:
        nonlocal looked_seldom_at
        done = await look_after(config=config, sessions=sessions, now=clock(), failing=failing)
        if looked_seldom_at is None or time.monotonic() - looked_seldom_at >= SELDOM_SECONDS:
            await look_seldom(config=config, sessions=sessions, now=clock())
            looked_seldom_at = time.monotonic()
        return 0 if done >= config.cases_per_pass else config.poll_seconds

    await repeat("dunning", one_round, stop=stop, failures=metrics.FAILURES.labels("round"))


async def look_after(
    *,
    config: DunningConfig,
    sessions: async_sessionmaker[AsyncSession],
    now: datetime,
    failing: dict[str, float] | None = None,
) -> int:
    """Open cases and take the steps that are due, each in a transaction of its own; returns how many.

    `failing`: which cases and subscriptions could not be dealt with, and until when (monotonic seconds) they are
    left alone; without it they are tried each time.
    """
    failing = {} if failing is None else failing
    for one in [one for one, until in failing.items() if until <= time.monotonic()]:
        del failing[one]
    async with sessions() as session:
        unpaid = await without_case(session, besides=failing, limit=config.cases_per_pass)
        due = await due_cases(session, now=now, besides=failing, limit=config.cases_per_pass)

    async def begin(session: AsyncSession, subscription_id: str) -> None:
        await open_case(session, subscription_id=subscription_id, config=config, now=now)

    async def step(session: AsyncSession, case_id: str) -> None:
        await take_step(session, case_id=case_id, config=config, now=now)

    opened = await _each(sessions, unpaid, begin, name="open", failing=failing)
    return opened + await _each(sessions, due, step, name="step", failing=failing)


async def look_seldom(*, config: DunningConfig, sessions: async_sessionmaker[AsyncSession], now: datetime) -> None:
    """Tell of trials that end and of payments that customers must confirm; count cases."""
    if config.trial_notice:
        async with sessions() as session, session.begin():
            await tell_of_trials(session, config=config, now=now)
    async with sessions() as session, session.begin():
        await tell_of_confirmations(session, received_after=now - LOOK_BACK, now=now)
    async with sessions() as session:
        found = await open_by_state(session)
    for state in OPEN_STATES:
        metrics.OPEN.labels(state).set(found.get(state, 0))


async def _each(
    sessions: async_sessionmaker[AsyncSession],
    ids: list[str],
    do: Callable[[AsyncSession, str], Awaitable[None]],
    *,
    name: str,
    failing: dict[str, float],
) -> int:
    done = 0
    for one in ids:
        # one by one: a case that cannot be dealt with does not keep the others from it
        try:
            async with sessions() as session, session.begin():
                await do(session, one)
            done += 1
        except Exception as error:  # noqa: BLE001 - the others' turn comes all the same
            failing[one] = time.monotonic() + FAILED_PAUSE_SECONDS
            metrics.FAILURES.labels(name).inc()
            log.warning("a step of dunning failed", step=name, entity_id=one, error=repr(error))
    return done
