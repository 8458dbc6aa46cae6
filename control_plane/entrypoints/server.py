"""A server process: the API, the workers, or both, in one event loop, from start to graceful stop."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.admin_api.app import create_app, create_health_app
from control_plane.admin_api.history import EventHistory
from control_plane.admin_api.services import Check, Ingest, Services
from control_plane.entrypoints import components
from control_plane.entrypoints.notice_components import dunning_config, mail_config
from control_plane.entrypoints.schema import SchemaWatch
from control_plane.entrypoints.settings import Settings
from control_plane.entrypoints.stripe_components import open_stripe, webhooks_config
from control_plane.entrypoints.supervisor import Supervisor, Worker
from control_plane.foundation.db import create_engine, session_factory
from control_plane.foundation.redis import RedisClient, create_redis
from control_plane.gateway_sync.sweep import SweepReport, rebuild
from control_plane.usage.ingest.rate_limit import RateLimiter
from control_plane.webhooks.stripe import stripe_webhooks

GRACE_SECONDS = 20.0
HTTP_GRACE_SECONDS = 10
CHECK_TIMEOUT_SECONDS = 3.0
QUICK_TIMEOUT_SECONDS = 0.5
# Requests and workers have connections apart: whatever callers do, usage goes on being counted.
REQUEST_POOL_SIZE = 15
WORKER_POOL_SIZE = 10
REQUEST_STATEMENT_TIMEOUT_MS = 30_000
# Batches of events become garbage as a whole and hold no cycles: looking for cycles in them is lost time.
GC_THRESHOLDS = (100_000, 50, 100)

log = structlog.stdlib.get_logger(__name__)


class StartError(Exception):
    """The process cannot start; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Part:
    """What this process does. A process without the API answers health and metrics only."""

    api: bool
    workers: bool


SERVE = Part(api=True, workers=True)
API = Part(api=True, workers=False)
WORKER = Part(api=False, workers=True)


async def run_server(settings: Settings, part: Part, *, ready: Callable[[str], None] = lambda _: None) -> None:
    """Run until SIGINT or SIGTERM, then stop gracefully; a second signal ends the process at once.

    `ready` is called with the address once the process listens. Stores may come and go meanwhile: readiness and
    the logs tell.

    Raises:
        StartError: the schema is too old, the address is taken, or the embedded store would be shared.
    """
    if part != SERVE and settings.clickhouse_dsn.startswith("chdb:"):
        raise StartError("KM_CLICKHOUSE_DSN: the embedded event store serves one process: use `km serve`")
    gc.set_threshold(*GC_THRESHOLDS)
    engine = create_engine(
        settings.database_url,
        pool_size=REQUEST_POOL_SIZE,
        application_name="km-requests",
        statement_timeout_ms=REQUEST_STATEMENT_TIMEOUT_MS,
    )
    schema = SchemaWatch(settings.database_url)
    await _require_schema(schema, engine)
    listener = _listen(settings)
    workers_engine = create_engine(
        settings.database_url, pool_size=WORKER_POOL_SIZE, application_name="km-workers"
    )
    workers = components.workers(settings, session_factory(workers_engine)) if part.workers else []
    writer = components.event_ingest(settings, session_factory(workers_engine)) if part.api else None
    if writer is not None:
        workers.append(Worker("ingest", writer.run))
    supervisor = Supervisor(workers)
    async with (
        _stores(settings, engine, workers_engine) as (history, client),
        _quick_redis(settings) as quick,
        open_stripe(settings, session_factory(engine)) as stripe,
    ):
        limiter = RateLimiter(quick, components.ingest_limit(settings))
        services = Services(
            sessions=session_factory(engine),
            history=history,
            rebuild=partial(_rebuild, settings, workers_engine, client),
            gateway=components.gateway_config(settings),
            exports=components.export_config(settings),
            invoice_terms=components.invoice_terms(settings),
            pdf_fonts=settings.pdf_fonts,
            ingest=None if writer is None else Ingest(limiter, writer),
            stripe=stripe,
            mail=mail_config(settings),
            dunning=dunning_config(settings),
            usage_catalog=components.usage_catalog(settings, session_factory(engine)),
            checks=_checks(engine, schema, client, history, supervisor),
        )
        app = create_app(services) if part.api else create_health_app(services)
        if part.api:
            app.include_router(stripe_webhooks(webhooks_config(settings, session_factory(engine))))
        await _serve(app, listener, supervisor, ready=ready)


async def _serve(
    app: FastAPI, listener: socket.socket, supervisor: Supervisor, *, ready: Callable[[str], None]
) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=HTTP_GRACE_SECONDS,
    )
    server = _Server(config)
    stop = asyncio.Event()
    _stop_on_signals(stop)
    supervisor.start()
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    stopping = asyncio.create_task(stop.wait())
    address = _address(listener)
    await log.ainfo("listening", address=address, workers=supervisor.names)
    ready(address)
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await log.ainfo("stopping")
    stopping.cancel()
    server.should_exit = True
    await asyncio.gather(serving, supervisor.stop(grace_seconds=GRACE_SECONDS))
    await log.ainfo("stopped")


class _Server(uvicorn.Server):
    """Leaves signals to us: workers stop with the API."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # asked twice: whatever is under way is safe to be killed
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)


@contextlib.asynccontextmanager
async def _stores(settings: Settings, *engines: AsyncEngine) -> AsyncIterator[tuple[EventHistory, RedisClient]]:
    history = EventHistory(components.event_store_config(settings))
    client = create_redis(settings.redis_url)
    try:
        yield history, client
    finally:
        await history.close()
        await client.aclose()
        for engine in engines:
            await engine.dispose()


@contextlib.asynccontextmanager
async def _quick_redis(settings: Settings) -> AsyncIterator[RedisClient]:
    """Lend a client that gives up soon: what is asked through it can be decided without Redis."""
    client = create_redis(settings.redis_url, timeout_seconds=QUICK_TIMEOUT_SECONDS)
    try:
        yield client
    finally:
        await client.aclose()


async def _rebuild(settings: Settings, engine: AsyncEngine, client: RedisClient, now: datetime) -> SweepReport:
    return await rebuild(engine, client, public_url=settings.public_url, now=now)


def _checks(
    engine: AsyncEngine, schema: SchemaWatch, client: RedisClient, history: EventHistory, supervisor: Supervisor
) -> dict[str, Check]:
    async def postgres() -> str | None:
        return await schema.problem(engine)

    async def redis() -> str | None:
        await client.ping()
        return None

    async def event_store() -> str | None:
        await history.check()
        return None

    async def worker(name: str) -> str | None:
        return supervisor.problem(name)

    stores: dict[str, Check] = {"postgres": postgres, "redis": redis, "event_store": event_store}
    return stores | {f"worker_{name}": partial(worker, name) for name in supervisor.names}


async def _require_schema(schema: SchemaWatch, engine: AsyncEngine) -> None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            problem = await schema.problem(engine)
    except Exception as error:  # noqa: BLE001 - a database that is not up yet may come up
        await log.awarning("database_not_reached_yet", exc_info=error)
        return
    if problem is not None:
        await engine.dispose()
        raise StartError(f"KM_DATABASE_URL: {problem}")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise StartError(
            f"KM_HOST, KM_PORT: cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    # Connections inherit it; asyncio sets it only where the socket names its protocol. An answer leaves in two
    # pieces: the second would wait until the client acknowledges the first, 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
