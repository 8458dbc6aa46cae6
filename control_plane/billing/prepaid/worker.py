"""The loop that draws prepaid usage as hours are sealed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.credits import metrics
from control_plane.billing.prepaid.drawing import Drawn, draw_for
from control_plane.billing.prepaid.periods import SEAL_MARGIN, ChangedPeriod, begin_periods, changed_periods
from control_plane.foundation.clock import utc_now
from control_plane.foundation.errors import KmError
from control_plane.foundation.rounds import repeat

SWEEP_MARGIN = timedelta(hours=1)
EVER = datetime(2000, 1, 1, tzinfo=UTC)
# what is wrong with one subscription must not keep the others' usage from being drawn
OF_ONE = (KmError, ValueError, KeyError, IntegrityError, DataError)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PrepaidDrawsConfig:
    """`batch`: billing periods of one transaction."""

    pause_seconds: float = 2.0
    sweep_seconds: float = 600.0
    batch: int = 100


async def draw_usage(
    sessions: async_sessionmaker[AsyncSession],
    *,
    since: datetime = EVER,
    margin: timedelta = SWEEP_MARGIN,
    batch: int = 100,
    now: datetime,
) -> Drawn:
    """Open billing periods that began, and draw what was sealed after `since`; each batch in its own transaction.

    Returns what was done in all. Idempotent: only what is not drawn yet is drawn. A period that cannot be rated
    does not hold the others: it is counted, logged, and left to its invoice until more of it is sealed.
    """
    async with sessions() as session, session.begin():
        begun = await begin_periods(session, now=now)
    async with sessions() as session:
        found = await changed_periods(session, since=since, margin=margin, now=now)
    # where both name a period, what began reaches back further
    changed = list({one.key: one for one in (*found, *begun)}.values())
    total = Drawn()
    for start in range(0, len(changed), batch):
        total = total + await _draw(sessions, changed[start : start + batch], now=now)
    return total


async def _draw(
    sessions: async_sessionmaker[AsyncSession], changed: Sequence[ChangedPeriod], *, now: datetime
) -> Drawn:
    """Draw for a batch; where it cannot be rated, for one by one."""
    try:
        async with sessions() as session, session.begin():
            return await draw_for(session, changed, now=now)
    except OF_ONE as error:
        if len(changed) > 1:
            log.warning("usage of a batch cannot be drawn: its periods are tried one by one", error=repr(error))
        else:
            metrics.FAILURES.labels("subscription").inc()
            log.warning("usage cannot be drawn", subscription_id=changed[0].subscription_id, error=repr(error))
    total = Drawn()
    if len(changed) > 1:
        for one in changed:
            total = total + await _draw(sessions, [one], now=now)
    return total


async def run_prepaid_draws(
    *,
    config: PrepaidDrawsConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Draw usage as it is sealed, until `stop`. Failures are counted, logged and tried again."""
    seen_until = swept_at = EVER

    async def one_round() -> float:
        nonlocal seen_until, swept_at
        now = clock()
        sweep = now - swept_at >= timedelta(seconds=config.sweep_seconds)
        margin = SWEEP_MARGIN if sweep else SEAL_MARGIN
        # what had begun may have been kept, and not looked at: after a failure everything is looked at
        since, seen_until = seen_until, EVER
        drawn = await draw_usage(sessions, since=since - margin, margin=margin, batch=config.batch, now=now)
        metrics.DRAWS.inc(drawn.periods)
        seen_until, swept_at = now, now if sweep else swept_at
        return config.pause_seconds

    await repeat("prepaid-draws", one_round, stop=stop, failures=metrics.FAILURES.labels("draws"))
