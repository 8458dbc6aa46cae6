"""The sample upstream: the Weather API that the demo and the tests sell.

It knows nothing of keys or plans, as an API behind a gateway should not.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORECAST_DAYS = 5
MAX_HISTORY_LINES = 10_000
MAX_SLOW_MS = 60_000
MIN_STATUS, MAX_STATUS = 200, 599


def weather_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/v1/current/{city}", current),
            Route("/v1/forecast/{city}", forecast),
            Route("/v1/reports", report, methods=["POST"]),
            Route("/v1/history/{city}", history),
            Route("/v1/tokens", tokens),
            Route("/v1/status/{code:int}", status, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            Route("/v1/slow", slow),
            Route("/v1/answers/{name}", answer_as_asked, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            Route("/v1/echo", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
    )


async def current(request: Request) -> Response:
    city = request.path_params["city"]
    return JSONResponse({"city": city, "temperature_c": _temperature(city, day=0)})


async def forecast(request: Request) -> Response:
    city = request.path_params["city"]
    days = [{"day": day, "temperature_c": _temperature(city, day=day)} for day in range(FORECAST_DAYS)]
    return JSONResponse({"city": city, "days": days})


async def report(request: Request) -> Response:
    """Takes an observation; answers its size and digest, so that a test sees that nothing was lost."""
    body = await request.body()
    digest = hashlib.sha256(body).hexdigest()
    return JSONResponse({"received_bytes": len(body), "sha256": digest}, status_code=201)


async def history(request: Request) -> Response:
    """NDJSON, one line at a time: `?lines=` (100), with `?pause_ms=` between them (0)."""
    city = request.path_params["city"]
    lines = min(int(request.query_params.get("lines", "100")), MAX_HISTORY_LINES)
    pause_seconds = int(request.query_params.get("pause_ms", "0")) / 1000

    async def stream() -> AsyncIterator[bytes]:
        for day in range(lines):
            yield json.dumps({"day": -day, "temperature_c": _temperature(city, day=-day)}).encode() + b"\n"
            await asyncio.sleep(pause_seconds)

    return StreamingResponse(stream(), media_type="application/x-ndjson")


async def tokens(request: Request) -> Response:
    """Reports `?n=` used tokens in the header that a plan may bill by."""
    count = int(request.query_params.get("n", "1"))
    return JSONResponse({"tokens": count}, headers={"X-Usage-Tokens": str(count)})


async def status(request: Request) -> Response:
    """Answers with the status asked for; outside 200 to 599 it is a 400."""
    code = request.path_params["code"]
    if not MIN_STATUS <= code <= MAX_STATUS:
        return JSONResponse({"message": f"no such status: {code}"}, status_code=400)
    return JSONResponse({"status": code}, status_code=code)


async def slow(request: Request) -> Response:
    """Answers after `?ms=` (1000) milliseconds."""
    wait_ms = min(int(request.query_params.get("ms", "1000")), MAX_SLOW_MS)
    await asyncio.sleep(wait_ms / 1000)
    return JSONResponse({"waited_ms": wait_ms})


async def answer_as_asked(request: Request) -> Response:
    """Answers with `?status=` (200) after `?ms=` (0); `?tokens=` are reported as used. The name is the caller's.

    With `?replayed=` it says of itself whether it repeats an earlier answer.
    """
    asked = request.query_params
    code = min(max(int(asked.get("status", "200")), MIN_STATUS), MAX_STATUS)
    await asyncio.sleep(min(int(asked.get("ms", "0")), MAX_SLOW_MS) / 1000)
    told = {"X-Usage-Tokens": "tokens", "Idempotent-Replayed": "replayed"}
    headers = {header: asked[argument] for header, argument in told.items() if argument in asked}
    return JSONResponse({"name": request.path_params["name"]}, status_code=code, headers=headers)


async def echo(request: Request) -> Response:
    """Everything the upstream received: a presented key must not be among it."""
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
            "body": body.decode("utf-8", "replace"),
        }
    )


def _temperature(city: str, *, day: int) -> float:
    digest = hashlib.sha256(f"{city}/{day}".encode()).digest()
    return round(-15 + digest[0] * 50 / 255, 1)


class Named:
    """Says in every answer who gave it: a second instance may be the sandbox."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._header = (b"x-upstream-name", name.encode("latin-1"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self._header]
            await send(message)

        await self._app(scope, receive, send_named)


class Journal:
    """Writes down each request before it is answered: time, method, path and headers, as JSON, one a line.

    And in a line of its own, just before the end of the answer leaves, when it ends; `call` is the same in both.
    """

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # an upstream that was killed and started again numbers anew
        call = f"{os.getpid()}-{next(self._numbers)}"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._write(call=call, at_ms=_now_ms(), method=scope["method"], path=scope["path"], headers=headers)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._write(call=call, ended_ms=_now_ms())
            await send(message)

        await self._app(scope, receive, send_noted)

    def _write(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.upstream", description="The sample Weather API.")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--journal", type=Path, help="file to which every request is appended")
    parser.add_argument("--name", help="who it is (sandbox), told in X-Upstream-Name of every answer")
    options = parser.parse_args()
    app: ASGIApp = weather_app()
    if options.name:
        app = Named(app, options.name)
    uvicorn.run(
        Journal(app, options.journal) if options.journal else app,
        host="127.0.0.1",
        port=options.port,
        access_log=False,
        log_level="warning",
        # longer than a gateway keeps an idle connection, so that it is never closed under a request
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
