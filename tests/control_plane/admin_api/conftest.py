"""The API in this process, over a real database."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.accounts.tokens import create_token
from control_plane.admin_api.app import create_app
from control_plane.admin_api.history import EventHistory
from control_plane.admin_api.services import Services
from control_plane.foundation.redis import create_redis
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.sweep import SweepReport, rebuild
from control_plane.usage.store import EventStoreConfig

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """structlog's own default draws every local variable of a traceback, which takes a minute."""
    processors = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=processors, logger_factory=structlog.stdlib.LoggerFactory())
    yield
    structlog.reset_defaults()


KONG_YML = """
_format_version: "3.0"
services:
  - name: weather
    url: http://127.0.0.1:9001
    routes:
      - name: weather
        paths: [/weather]
      - name: heavy
        paths: [/heavy]
"""


@pytest.fixture
async def history(clickhouse_dsn: str) -> AsyncIterator[EventHistory]:
    history = EventHistory(EventStoreConfig(dsn=clickhouse_dsn))
    yield history
    await history.close()


@pytest.fixture
def services(
    engine: AsyncEngine,
    sessions: async_sessionmaker[AsyncSession],
    history: EventHistory,
    redis_url: str,
    tmp_path: Path,
) -> Services:
    base_path = tmp_path / "kong.yml"
    base_path.write_text(KONG_YML)

    async def rebuild_redis(now: datetime) -> SweepReport:
        client = create_redis(redis_url)
        try:
            return await rebuild(engine, client, public_url="http://km.test", now=now)
        finally:
            await client.aclose()

    return Services(
        sessions=sessions,
        history=history,
        rebuild=rebuild_redis,
        gateway=GatewayConfig(base_path=base_path, usage_spool_path="/spool/usage.log"),
        now=lambda: NOW,
    )


@pytest.fixture(scope="session")
def built_app() -> FastAPI:
    """Made once: reading the models of all routes takes half a second. The services are only held by its state."""

    async def nothing_to_rebuild(_now: datetime) -> SweepReport:
        raise AssertionError("a test without services of its own")

    return create_app(Services(sessions=None, history=None, rebuild=nothing_to_rebuild))


@pytest.fixture
def app(built_app: FastAPI, services: Services) -> FastAPI:
    built_app.state.services = services
    return built_app


@pytest.fixture
async def tokens(sessions: async_sessionmaker[AsyncSession]) -> dict[str, str]:
    """Token texts by role."""
    async with sessions() as session, session.begin():
        return {
            role: (await create_token(session, name=role, role=role, actor="test", now=NOW)).text
            for role in ("owner", "admin", "finance", "support", "read_only")
        }


@pytest.fixture
async def client_of(app: FastAPI, tokens: dict[str, str]) -> AsyncIterator[Callable[[str], httpx.AsyncClient]]:
    """Makes clients by role."""
    clients: list[httpx.AsyncClient] = []

    def make(role: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {tokens[role]}"} if role else {}
        transport = httpx.ASGITransport(app)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://km", headers=headers))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def client(client_of: Callable[[str], httpx.AsyncClient]) -> httpx.AsyncClient:
    """A client with an owner's token."""
    return client_of("owner")


@pytest.fixture
def stranger(client_of: Callable[[str], httpx.AsyncClient]) -> httpx.AsyncClient:
    """A client without any token."""
    return client_of("")
