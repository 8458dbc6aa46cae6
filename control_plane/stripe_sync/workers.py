"""All that works with Stripe inside a server process, over one connection: one pace, one order of calls."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.stripe_sync.catalog.worker import PushConfig, run_catalog_push
from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.events.registry import APPLIERS
from control_plane.stripe_sync.events.worker import EventsConfig, run_events
from control_plane.stripe_sync.invoices.worker import InvoicesConfig, run_invoices
from control_plane.stripe_sync.model import StripeContext, StripeHooks
from control_plane.stripe_sync.subscriptions.worker import SubscriptionsConfig, run_stripe_subscriptions
from control_plane.stripe_sync.usage.sender import UsageSenderConfig, run_usage_sender


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeWorkersConfig:
    """Everything the workers need. `hooks`: what layers above do as soon as something is seen."""

    stripe: StripeConfig
    hooks: StripeHooks = field(default_factory=StripeHooks)
    events: EventsConfig = field(default_factory=EventsConfig)
    push: PushConfig = field(default_factory=PushConfig)
    subscriptions: SubscriptionsConfig = field(default_factory=SubscriptionsConfig)
    usage: UsageSenderConfig = field(default_factory=UsageSenderConfig)
    invoices: InvoicesConfig = field(default_factory=InvoicesConfig)


async def run_stripe_workers(
    *,
    config: StripeWorkersConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Do all work with Stripe until `stop`. Any number of processes may; failures are waited out."""
    async with Stripe.open(config.stripe) as stripe:
        context = StripeContext(sessions=sessions, stripe=stripe, now=clock(), hooks=config.hooks)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_events(context, APPLIERS, config=config.events, stop=stop, clock=clock))
            tasks.create_task(run_invoices(context, config=config.invoices, stop=stop, clock=clock))
            tasks.create_task(run_catalog_push(config=config.push, context=context, clock=clock, stop=stop))
            tasks.create_task(
                run_stripe_subscriptions(config=config.subscriptions, context=context, clock=clock, stop=stop)
            )
            tasks.create_task(
                run_usage_sender(sessions=sessions, stripe=stripe, stop=stop, config=config.usage, clock=clock)
            )
