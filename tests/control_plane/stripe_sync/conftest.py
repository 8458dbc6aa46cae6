"""A simulated Stripe, empty and standing still at the test's `now`, and our way to it."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.model import StripeContext
from devstack.stripe.embedded import EmbeddedStripe


@pytest.fixture(scope="session")
def stripe_server() -> Iterator[EmbeddedStripe]:
    with EmbeddedStripe() as server:
        yield server


@pytest.fixture
def sim(stripe_server: EmbeddedStripe, now: datetime) -> Iterator[EmbeddedStripe]:
    """The simulator; what it answered must have been as the SDK's types say."""
    stripe_server.control.reset(at=int(now.timestamp()))
    yield stripe_server
    assert stripe_server.control.violations() == []


@pytest.fixture
def stripe_config(sim: EmbeddedStripe) -> StripeConfig:
    """Patience is short, and requests are as fast as they can be."""
    return StripeConfig(
        api_key=sim.api_key,
        api_base=sim.url,
        webhook_secret=sim.webhook_secret,
        thin_secret=sim.thin_secret,
        timeout_seconds=10.0,
        network_retries=0,
        busy_tries=2,
        busy_pause_seconds=0.01,
        requests_per_second=10_000.0,
    )


@pytest.fixture
async def stripe(stripe_config: StripeConfig) -> AsyncIterator[Stripe]:
    async with Stripe.open(stripe_config) as opened:
        yield opened


@pytest.fixture
def context(sessions: async_sessionmaker[AsyncSession], stripe: Stripe, now: datetime) -> StripeContext:
    return StripeContext(sessions=sessions, stripe=stripe, now=now)
