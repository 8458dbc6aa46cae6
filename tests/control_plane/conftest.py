"""A fresh database and a session for each test."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.foundation.db import create_engine, session_factory
from devstack.stores.postgres import EmbeddedPostgres


@dataclass
class OfTheTest:
    """The one engine of all tests, and the database that it connects to at the moment."""

    engine: AsyncEngine
    database: str = ""


@pytest.fixture(scope="session")
def of_the_test(postgres_server: EmbeddedPostgres) -> OfTheTest:
    """An engine keeps the SQL that it has made of statements, which takes longer than to run most of them."""
    shared = OfTheTest(create_engine(postgres_server.dsn.replace("postgresql://", "postgresql+psycopg://", 1)))

    @event.listens_for(shared.engine.sync_engine, "do_connect")
    def connect(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> None:
        options["dbname"] = shared.database

    return shared


@pytest.fixture
async def engine(of_the_test: OfTheTest, database_url: str) -> AsyncIterator[AsyncEngine]:
    """Connected to a fresh migrated database. Its address and whoever listens to it are the test's own."""
    url = make_url(database_url)
    of_the_test.database = url.database or ""
    engine = of_the_test.engine.execution_options()
    engine.sync_engine.url = url
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """For tests that need transactions side by side."""
    return session_factory(engine)


@pytest.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


@pytest.fixture
def now() -> datetime:
    """A moment in the middle of an hour, a day and a month."""
    return datetime(2026, 3, 17, 10, 37, 12, 345_000, tzinfo=UTC)
