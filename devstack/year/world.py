"""The control plane in this process, on real stores, under a clock that the year sets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.model import Role
from control_plane.accounts.tokens import create_token
from control_plane.admin_api.app import create_app
from control_plane.admin_api.history import EventHistory
from control_plane.admin_api.services import Services
from control_plane.billing.invoices.finalising import InvoiceTerms
from control_plane.billing.profiles.model import Seller
from control_plane.foundation.db import create_engine, session_factory
from control_plane.foundation.redis import RedisClient, create_redis
from control_plane.gateway_sync.sweep import SweepReport, rebuild
from control_plane.usage.collect.catalog import CatalogWatch
from control_plane.usage.collect.collector import Collector, CollectorConfig
from control_plane.usage.collect.enrichment import AccountCache
from control_plane.usage.collect.storing import EventWriter
from control_plane.usage.collect.stream import StreamSource
from control_plane.usage.store import EventStore, EventStoreConfig
from devstack.year.gateway import SECRET, Gateway

TERMS = InvoiceTerms(seller=Seller(name="Weather Ltd", country="DE"))
PUBLIC_URL = "http://weather.example"
ADMIN = "/admin/v1"


class RefusedError(Exception):
    """The API refused a step of the story; the message is what it said."""


@dataclass(slots=True)
class Clock:
    """The time of the year: stands still until it is set."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True, kw_only=True)
class World:
    """Stores, workers' parts and a client of the REST API. `steps` counts what was asked of it."""

    clock: Clock
    sessions: async_sessionmaker[AsyncSession]
    store: EventStore
    redis: RedisClient
    stream: Redis
    collector: Collector
    gateway: Gateway
    client: httpx.AsyncClient
    steps: int = 0
    known: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None, *, yaml: str | None = None) -> Any:
        """Ask the REST API at the clock's time.

        Raises:
            RefusedError: it answered with an error.
        """
        self.steps += 1
        if yaml is not None:
            sent: dict[str, Any] = {"content": yaml, "headers": {"Content-Type": "application/yaml"}}
        else:
            sent = {} if method == "GET" else {"json": body or {}}
        answer = await self.client.request(method, ADMIN + path, **sent)
        if answer.is_error:
            raise RefusedError(
                f"{self.clock.now:%Y-%m-%d %H:%M} {method} {path}: {answer.status_code} {answer.text}"
            )
        return answer.json() if answer.content else None

    async def pages(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the items of every page of a list."""
        mark, cursor = "&" if "?" in path else "?", ""
        while True:
            page = await self.ask("GET", f"{path}{mark}limit=200{cursor}")
            for item in page["items"]:
                yield item
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"


@asynccontextmanager
async def open_world(
    *, database_url: str, redis_url: str, clickhouse_dsn: str, now: datetime
) -> AsyncIterator[World]:
    """Open the control plane on a migrated, empty database, an empty Redis and an empty event store."""
    async with AsyncExitStack() as stack:
        engine = create_engine(database_url, pool_size=5, application_name="km-year")
        stack.push_async_callback(engine.dispose)
        sessions = session_factory(engine)
        redis = create_redis(redis_url)
        stack.push_async_callback(redis.aclose)
        stream = Redis.from_url(redis_url)
        stack.push_async_callback(stream.aclose)
        config = EventStoreConfig(dsn=clickhouse_dsn)
        store = EventStore.open(config)
        stack.callback(store.close)
        history = EventHistory(config)
        stack.push_async_callback(history.close)
        clock = Clock(now)

        async def rebuild_redis(moment: datetime) -> SweepReport:
            return await rebuild(engine, redis, public_url=PUBLIC_URL, now=moment)

        services = Services(
            sessions=sessions, history=history, rebuild=rebuild_redis, invoice_terms=TERMS, now=clock
        )
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(services)),
            base_url="http://km",
            headers={"Authorization": f"Bearer {await _token(sessions, now)}"},
        )
        await stack.enter_async_context(client)
        yield World(
            clock=clock,
            sessions=sessions,
            store=store,
            redis=redis,
            stream=stream,
            collector=_collector(stream, sessions, store, clock),
            gateway=Gateway(stream),
            client=client,
        )


async def _token(sessions: async_sessionmaker[AsyncSession], now: datetime) -> str:
    async with sessions() as session, session.begin():
        return (await create_token(session, name="year", role=Role.OWNER, actor="year", now=now)).text


def _collector(
    stream: Redis, sessions: async_sessionmaker[AsyncSession], store: EventStore, clock: Clock
) -> Collector:
    catalog = CatalogWatch(secrets=(SECRET,), sessions=sessions)
    return Collector(
        config=CollectorConfig(max_age_seconds=0.0),
        source=StreamSource(stream, shard=0, shards=1),
        sessions=sessions,
        writer=EventWriter(store=store, attribution=catalog.attribution, kept=catalog.kept),
        clock=clock,
        refresh_catalog=catalog.refresh,
        accounts=AccountCache(stream),
    )
