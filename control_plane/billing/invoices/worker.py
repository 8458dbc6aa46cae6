"""The loop that closes billing periods: as many workers as wanted, each on other subscriptions."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.invoices import metrics
from control_plane.billing.invoices.closing import ClosingConfig, ClosingResult, close_due
from control_plane.billing.invoices.late_usage import find_late_usage, look_at_over
from control_plane.billing.invoices.progress import due_ids, look_at_changed, look_at_unknown, put_off
from control_plane.foundation.clock import utc_now
from control_plane.foundation.errors import KmError
from control_plane.foundation.rounds import repeat

log = structlog.get_logger(__name__)
# what is wrong with one subscription must not keep the others from being billed
OF_ONE = (KmError, ValueError, LookupError, ArithmeticError, IntegrityError, DataError)
PUT_OFF = timedelta(hours=1)
T = TypeVar("T")


async def run_closing(
    *,
    config: ClosingConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Bill what is due until `stop`. Failures are counted, logged and tried again."""
    swept_at: datetime | None = None

    async def one_round() -> float:
        nonlocal swept_at
        now = clock()
        if swept_at is None or not timedelta(0) <= now - swept_at < timedelta(seconds=config.sweep_seconds):
            await sweep(sessions, now=now)
            swept_at = now
        looked = await close_round(sessions, config=config, now=clock())
        return 0 if looked else config.pause_seconds

    await repeat("invoices", one_round, stop=stop, failures=metrics.FAILURES.labels("close"))


async def sweep(sessions: async_sessionmaker[AsyncSession], *, now: datetime) -> None:
    """Find what nobody tells of: usage sealed late, and subscriptions that billing does not know."""
    async with sessions() as session, session.begin():
        metrics.PERIODS_CHANGED.inc(await find_late_usage(session, now=now))
    async with sessions() as session, session.begin():
        await look_at_over(session, now=now)
    async with sessions() as session, session.begin():
        await look_at_unknown(session, now=now)


async def close_round(
    sessions: async_sessionmaker[AsyncSession], *, config: ClosingConfig, now: datetime
) -> ClosingResult | None:
    """Take news and close one batch, each in its own transaction; None where there was neither."""
    told = await _in_transaction(sessions, lambda session: look_at_changed(session, now=now))
    with metrics.ROUND_SECONDS.time():
        try:
            result = await _in_transaction(sessions, lambda session: close_due(session, config=config, now=now))
        except OF_ONE as error:
            log.warning("a batch cannot be billed: its subscriptions are tried one by one", error=repr(error))
            result = await _one_by_one(sessions, config=config, now=now)
    metrics.INVOICES_FINALISED.inc(result.finalised)
    metrics.PERIODS_BILLED.inc(result.closed)
    metrics.WAITING.set(result.waiting)
    return result if told or result.looked else None


async def close_all(
    sessions: async_sessionmaker[AsyncSession], *, config: ClosingConfig, now: datetime
) -> ClosingResult:
    """Do everything that is due at `now`, swept first; returns what all rounds did together."""
    await sweep(sessions, now=now)
    total = ClosingResult()
    while (result := await close_round(sessions, config=config, now=now)) is not None:
        total = total + result
    return total


async def _one_by_one(
    sessions: async_sessionmaker[AsyncSession], *, config: ClosingConfig, now: datetime
) -> ClosingResult:
    """Close as many subscriptions as a batch has, each by itself; put off those that cannot be billed."""
    total = ClosingResult()
    ids = await _in_transaction(sessions, lambda session: due_ids(session, now=now, limit=config.batch))
    for one in ids:
        try:
            total = total + await _in_transaction(sessions, partial(close_due, config=config, now=now, only=one))
        except OF_ONE as error:
            await _in_transaction(sessions, partial(put_off, subscription_id=one, until=now + PUT_OFF, now=now))
            metrics.FAILURES.labels("subscription").inc()
            log.warning("a subscription cannot be billed", subscription_id=one, error=repr(error))
            total = total + ClosingResult(looked=1)
    return total


async def _in_transaction(
    sessions: async_sessionmaker[AsyncSession], work: Callable[[AsyncSession], Awaitable[T]]
) -> T:
    async with sessions() as session, session.begin():
        return await work(session)
