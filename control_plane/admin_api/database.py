"""One transaction per request."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.services import Given


async def _session(services: Given) -> AsyncIterator[AsyncSession]:
    async with services.sessions() as session, session.begin():
        yield session


# scope="function": committed before the answer leaves, so that a failed commit becomes an error answer, and a
# caller that has its answer finds its change
Database = Annotated[AsyncSession, Depends(_session, scope="function")]
