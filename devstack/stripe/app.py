"""The simulator over HTTP, on 127.0.0.1."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from devstack.stripe import operations
from devstack.stripe.control import control_router
from devstack.stripe.delivery import Courier
from devstack.stripe.events import note_delivered
from devstack.stripe.front import Front, NoAnswer
from devstack.stripe.keeping import Kept, load, save
from devstack.stripe.pages import page_router
from devstack.stripe.requests import Request
from devstack.stripe.simulator import Simulator

TICK_SECONDS = 0.05
KEEP_SECONDS = 1.0
SILENCE_SECONDS = 300.0


def make_app(sim: Simulator, *, keep: Path | None = None) -> ASGIApp:
    """One app for one simulated account. With `keep` it goes on with what that file holds, and keeps it there."""
    operations.load()
    kept = None if keep is None else load(keep)
    sim = sim if kept is None else kept.sim
    front = Front(sim)
    if kept is not None:
        front.keys = kept.keys
    courier = Courier(most_attempts=sim.config.webhook_attempts)
    sim.deliveries.queued = courier.take
    courier.delivered = lambda delivery: note_delivered(sim, delivery)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_tick(sim))]
        if keep is not None:
            tasks.append(asyncio.create_task(_keep(front, keep)))
        yield
        for task in tasks:
            task.cancel()
        if keep is not None:
            save(keep, Kept(sim, front.keys))
        await courier.close()

    app = FastAPI(title="Stripe simulator", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.include_router(control_router(front, courier))
    app.include_router(page_router(sim))
    for router in operations.pages(sim):
        app.include_router(router)
    app.add_api_route("/{path:path}", _api(front), methods=["GET", "POST", "DELETE"])
    return BreakableConnections(app)


def _api(front: Front) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def api(http: HttpRequest) -> Response:
        request = Request(
            method=http.method,
            path=http.scope["raw_path"].decode().partition("?")[0],
            query=http.url.query,
            headers={name.lower(): value for name, value in http.headers.items()},
            body=await http.body(),
            base_url=str(http.base_url).rstrip("/"),
        )
        front.sim.base_url = request.base_url
        try:
            answer = await front.answer(request)
        except NoAnswer as nothing:
            front.sim.run_soon()
            return await _silence(http, reset=nothing.reset)
        asyncio.get_running_loop().call_soon(front.sim.run_soon)
        return Response(answer.body, answer.status, headers=answer.headers, media_type="application/json")

    return api


async def _silence(http: HttpRequest, *, reset: bool) -> Response:
    """Break the connection off, or say nothing until the caller has gone."""
    if not reset:
        deadline = asyncio.get_running_loop().time() + SILENCE_SECONDS
        # ASGI tells of the end only when asked
        while asyncio.get_running_loop().time() < deadline and not await http.is_disconnected():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.02)
    http.scope["devstack.break_off"]()
    return Response(status_code=500)


class BreakableConnections:
    """Gives the handler a way to break off the connection, which ASGI has not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # `send` is bound to uvicorn's request cycle, which holds the transport
            cycle: Any = send.__self__  # type: ignore[attr-defined]  # a plain ASGI callable has none
            scope["devstack.break_off"] = cycle.transport.abort
        await self._app(scope, receive, send)


async def _tick(sim: Simulator) -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        sim.run_due()


async def _keep(front: Front, path: Path) -> None:
    """Write what is simulated down a moment after it changed."""
    kept = front.sim.state.last_number
    while True:
        await asyncio.sleep(KEEP_SECONDS)
        if front.sim.state.last_number != kept:
            kept = front.sim.state.last_number
            save(path, Kept(front.sim, front.keys))
