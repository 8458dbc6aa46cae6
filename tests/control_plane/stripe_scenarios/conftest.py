"""A world of its own for each scenario: a database, a Stripe that stands still, and a door for its webhooks.

With `KM_TEST_STRIPE_KEY` it is a part of an account at Stripe: see docs/stripe.md.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from stripe import WebhookSignature

from control_plane.foundation.db import session_factory
from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.model import StripeContext
from control_plane.webhooks.stripe import WebhooksConfig, stripe_webhooks
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.stripe_scenarios.access import Access, WrongAccessError, access_of
from tests.control_plane.stripe_scenarios.killing import Killer, KillingTransport, killing_sessions
from tests.control_plane.stripe_scenarios.simulated import Simulated
from tests.control_plane.stripe_scenarios.world import BOUGHT_AT, World
from tests.control_plane.stripe_scenarios.world_by_api import world_by_api


class SignedNow:
    """Signs webhooks again, at the world's time: the simulator signs at the machine's, as Stripe does.

    One whose signature is wrong keeps it.
    """

    def __init__(self, app: ASGIApp, *, secrets: tuple[str, str], now: Callable[[], datetime]) -> None:
        self._app = app
        self._secrets = secrets
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        secret = self._secrets[scope["path"].endswith("/thin")]
        headers = dict(scope["headers"])
        signature = headers[b"stripe-signature"].decode()
        if WebhookSignature.verify_header(body.decode(), signature, secret):
            signed = WebhookSignature.generate_signature_header(
                body.decode(), secret, timestamp=int(self._now().timestamp())
            )
            headers[b"stripe-signature"] = signed.encode()

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app({**scope, "headers": list(headers.items())}, again, send)


@pytest.fixture(scope="session")
def stripe_server() -> Iterator[EmbeddedStripe]:
    with EmbeddedStripe() as server:
        yield server


@pytest.fixture
def killer() -> Killer:
    """Kills nobody unless told to."""
    return Killer()


@pytest.fixture(scope="session")
def stripe_access() -> Access | None:
    """None: the stories run on the simulator."""
    try:
        return access_of(os.environ)
    except WrongAccessError as wrong:
        pytest.exit(str(wrong), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, stripe_access: Access | None, engine: AsyncEngine, killer: Killer
) -> AsyncIterator[World]:
    if stripe_access is None:
        telling = simulated_world(request.getfixturevalue("stripe_server"), engine, killer)
    else:
        telling = world_by_api(stripe_access, engine)
    async with telling as made:
        yield made


@asynccontextmanager
async def simulated_world(
    stripe_server: EmbeddedStripe, engine: AsyncEngine, killer: Killer
) -> AsyncIterator[World]:
    stripe_server.control.reset(at=int(BOUGHT_AT.timestamp()))
    sessions = killing_sessions(engine, killer)
    config = StripeConfig(
        api_key=stripe_server.api_key,
        api_base=stripe_server.url,
        webhook_secret=stripe_server.webhook_secret,
        thin_secret=stripe_server.thin_secret,
        network_retries=0,
        busy_tries=2,
        busy_pause_seconds=0.01,
        timeout_seconds=2.0,
        requests_per_second=10_000.0,
        transport=KillingTransport(killer),
    )
    async with Stripe.open(config) as stripe:
        made = World(
            sessions=sessions,
            plain=session_factory(engine),
            side=Simulated(stripe_server),
            ctx=StripeContext(sessions=sessions, stripe=stripe, now=BOUGHT_AT),
        )
        app = FastAPI()
        app.add_middleware(SignedNow, secrets=(config.webhook_secret, config.thin_secret), now=lambda: made.now)
        doors = WebhooksConfig(
            sessions=sessions,
            snapshot_secrets=(config.webhook_secret,),
            thin_secrets=(config.thin_secret,),
            now=lambda: made.now,
        )
        app.include_router(stripe_webhooks(doors))
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/webhooks/stripe"
        stripe_server.control.add_webhook(address, secret=stripe_server.webhook_secret)
        stripe_server.control.add_thin_webhook(f"{address}/thin", secret=stripe_server.thin_secret)
        try:
            yield made
        finally:
            server.should_exit = True
            await serving
            listener.close()
    assert stripe_server.control.violations() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say where at Stripe a story failed."""
    report = yield
    made = getattr(item, "funcargs", {}).get("world")
    if call.when == "call" and report.failed and isinstance(made, World):
        report.sections.append(("at Stripe", made.side.told()))
    return report
