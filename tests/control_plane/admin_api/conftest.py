"""The API in this process, over a real database."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.operations import create_token
from control_plane.admin_api.app import create_app
from control_plane.admin_api.services import Services
from control_plane.foundation.db import create_engine, session_factory

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_engine(database_url)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
def services(sessions: async_sessionmaker[AsyncSession]) -> Services:
    return Services(sessions=sessions, now=lambda: NOW)


@pytest.fixture
def app(services: Services) -> FastAPI:
    return create_app(services)


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
