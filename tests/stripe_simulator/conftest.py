"""A simulated Stripe, and Stripe's own SDK to drive it with."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import stripe

from devstack.stripe.embedded import EmbeddedStripe

NOW = 1_772_366_400  # 2026-03-01 12:00 UTC


@pytest.fixture
def now() -> int:
    """Where the simulator's clock stands at the start of a test."""
    return NOW


def make_client(
    server: EmbeddedStripe, *, api_key: str | None = None, retries: int = 0, timeout: float = 10.0
) -> stripe.StripeClient:
    hosts = dict.fromkeys(("api", "connect", "files", "meter_events"), server.url)
    return stripe.StripeClient(
        api_key or server.api_key,
        base_addresses=hosts,
        max_network_retries=retries,
        stripe_version="2026-10-28.endive",
        http_client=stripe.RequestsClient(timeout=timeout),
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
    return make_client(sim)


@pytest.fixture
def client_with(sim: EmbeddedStripe) -> Callable[..., stripe.StripeClient]:
    """More clients: with another key, with retries, or less patient."""
    return partial(make_client, sim)
