"""A simulated Stripe, and Stripe's own SDK to drive it with."""

from collections.abc import Iterator

import pytest
import stripe

from devstack.stripe.embedded import EmbeddedStripe

NOW = 1_772_366_400  # 2026-03-01 12:00 UTC


def client_of(server: EmbeddedStripe, *, api_key: str | None = None, retries: int = 0) -> stripe.StripeClient:
    hosts = dict.fromkeys(("api", "connect", "files", "meter_events"), server.url)
    return stripe.StripeClient(
        api_key or server.api_key,
        base_addresses=hosts,
        max_network_retries=retries,
        stripe_version="2026-10-28.endive",
        http_client=stripe.HTTPXClient(timeout=2.0, allow_sync_methods=True),
    )


@pytest.fixture(scope="session")
def stripe_server() -> Iterator[EmbeddedStripe]:
    with EmbeddedStripe() as server:
        yield server


@pytest.fixture
def sim(stripe_server: EmbeddedStripe) -> Iterator[EmbeddedStripe]:
    """Empty, and standing still at NOW. What it answered must have been as the SDK's types say."""
    stripe_server.control.reset(at=NOW)
    yield stripe_server
    assert stripe_server.control.violations() == []


@pytest.fixture
def client(sim: EmbeddedStripe) -> stripe.StripeClient:
    return client_of(sim)
