"""The worker of Stripe's invoices: drafts, corrections, checks."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.checking import check_invoices
from control_plane.stripe_sync.invoices.corrections import correct_billed
from control_plane.stripe_sync.invoices.mirror import name_subscriptions
from control_plane.stripe_sync.invoices.tasks import work_tasks
from control_plane.stripe_sync.model import StripeContext

# a round goes by the clock at its beginning, and whether a draft must be held is a matter of minutes
AT_ONCE: Final = 10
AFTER_FAILURE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicesConfig:
    """How often drafts are looked for, and billed periods for what was sealed late."""

    pause_seconds: float = 5.0
    corrections_every: timedelta = timedelta(minutes=15)


async def run_invoices(
    context: StripeContext,
    *,
    config: InvoicesConfig,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """See to drafts, correct and check final invoices until `stop`. Any number of processes may."""
    corrected_at: datetime | None = None

    async def drafts() -> float:
        return 0 if await work_tasks(context.at(clock()), limit=AT_ONCE) else config.pause_seconds

    async def finals() -> float:
        nonlocal corrected_at
        now = clock()
        async with context.sessions() as session, session.begin():
            await name_subscriptions(session)
        checked = await check_invoices(context.at(now))
        if corrected_at is None or now - corrected_at >= config.corrections_every:
            corrected_at = now - config.corrections_every + AFTER_FAILURE
            await correct_billed(context.at(now))
            corrected_at = now
        return 0 if checked else config.pause_seconds

    failures = metrics.FAILURES.labels
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(repeat("stripe-drafts", drafts, stop=stop, failures=failures("drafts")))
        tasks.create_task(repeat("stripe-finals", finals, stop=stop, failures=failures("finals")))


async def invoice_round(context: StripeContext) -> int:
    """Do once what the worker does, at the context's moment; returns how much there was to do."""
    async with context.sessions() as session, session.begin():
        done = await name_subscriptions(session)
    done += await work_tasks(context)
    done += await correct_billed(context)
    return done + await check_invoices(context)
