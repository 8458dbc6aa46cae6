"""Work that only one process does at a time, whoever gets there first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@asynccontextmanager
async def sole_worker(sessions: async_sessionmaker[AsyncSession], key: int) -> AsyncIterator[bool]:
    """Hold the PostgreSQL lock of this number; False where another holds it. Freed when the process dies.

    One connection is taken for as long, outside any transaction.
    """
    async with sessions() as session:
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        mine = bool(await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        try:
            yield mine
        finally:
            if mine:
                await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
