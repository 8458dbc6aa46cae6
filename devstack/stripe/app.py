"""The simulator over HTTP, on 127.0.0.1."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from devstack.stripe import operations
from devstack.stripe.contract.checking import Contract
from devstack.stripe.requests import Request, work
from devstack.stripe.simulator import Simulator

TICK_SECONDS = 0.05


def make_app(sim: Simulator) -> FastAPI:
    """One app for one simulated account."""
    operations.load()
    contract = Contract()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ticking = asyncio.create_task(_tick(sim))
        yield
        ticking.cancel()

    app = FastAPI(title="Stripe simulator", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def api(http: HttpRequest) -> Response:
        request = Request(
            method=http.method,
            path=http.scope["raw_path"].decode().partition("?")[0],
            query=http.url.query,
            headers={name.lower(): value for name, value in http.headers.items()},
            body=await http.body(),
            base_url=str(http.base_url).rstrip("/"),
        )
        answer = work(sim, contract, request, sim.state.new_id("req"))
        asyncio.get_running_loop().call_soon(sim.run_soon)
        return Response(answer.body, answer.status, headers=answer.headers, media_type="application/json")

    return app


async def _tick(sim: Simulator) -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        sim.clock.run_due()
