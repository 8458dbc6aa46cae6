"""What of this installation deals with Stripe: its workers, and the doors for its webhooks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.entrypoints.settings import Settings
from control_plane.entrypoints.supervisor import Worker
from control_plane.foundation.clock import utc_now
from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.events.signatures import split_secrets
from control_plane.stripe_sync.events.worker import EventsConfig
from control_plane.stripe_sync.model import StripeContext, StripeHooks
from control_plane.stripe_sync.workers import StripeWorkersConfig, run_stripe_workers
from control_plane.webhooks.stripe import WebhooksConfig


def stripe_config(settings: Settings) -> StripeConfig | None:
    """Return how Stripe is asked, None where this installation does not use it."""
    if not settings.stripe_key.get_secret_value():
        return None
    return StripeConfig(
        api_key=settings.stripe_key.get_secret_value(),
        api_base=settings.stripe_api_base,
        webhook_secret=settings.stripe_webhook_secret.get_secret_value(),
        thin_secret=settings.stripe_thin_secret.get_secret_value(),
        automatic_tax=settings.stripe_tax,
        installation=settings.stripe_installation,
    )


def stripe_workers(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> list[Worker]:
    """Return what works with Stripe; nothing where there is no key."""
    config = stripe_config(settings)
    if config is None:
        return []
    workers = StripeWorkersConfig(stripe=config, hooks=stripe_hooks(settings), events=events_config(settings))

    async def stripe(stop: asyncio.Event) -> None:
        await run_stripe_workers(config=workers, sessions=sessions, stop=stop)

    return [Worker("stripe", stripe)]


@asynccontextmanager
async def open_stripe(
    settings: Settings, sessions: async_sessionmaker[AsyncSession]
) -> AsyncIterator[StripeContext | None]:
    """Hold connections to Stripe open for requests; None where there is no key."""
    config = stripe_config(settings)
    if config is None:
        yield None
        return
    async with Stripe.open(config) as stripe:
        yield StripeContext(sessions=sessions, stripe=stripe, now=utc_now(), hooks=stripe_hooks(settings))


def stripe_hooks(_settings: Settings) -> StripeHooks:
    """Return what higher layers do as soon as something is seen at Stripe."""
    return StripeHooks()


def events_config(settings: Settings) -> EventsConfig:
    """Return how events are dealt with. Without a secret there are no webhooks, and lists are read instead."""
    config = EventsConfig(keep_bodies=timedelta(days=settings.stripe_event_body_days))
    return config if settings.stripe_webhook_secret.get_secret_value() else config.polled()


def webhooks_config(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> WebhooksConfig:
    """Return which webhooks are taken."""
    return WebhooksConfig(
        sessions=sessions,
        snapshot_secrets=split_secrets(settings.stripe_webhook_secret.get_secret_value()),
        thin_secrets=split_secrets(settings.stripe_thin_secret.get_secret_value()),
    )
