"""A world of its own for each scenario: a database, a Stripe that stands still, and a door for its webhooks."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
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
from tests.control_plane.stripe_scenarios.killing import Killer, KillingTransport, killing_sessions
from tests.control_plane.stripe_scenarios.world import BOUGHT_AT, World


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


@pytest.fixture
async def world(stripe_server: EmbeddedStripe, engine: AsyncEngine, killer: Killer) -> AsyncIterator[World]:
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
            sim=stripe_server,
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
