"""What the API is given to work with; put together in entrypoints, and in tests."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.gateway_sync.config import GatewayConfig

# Raises, or returns a problem in words, when the thing is not usable; returns None when it is.
Check = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`checks` decide readiness, by name: `postgres`, `redis`, `event_store`, and one for each worker."""

    sessions: async_sessionmaker[AsyncSession]
    gateway: GatewayConfig | None = None
    checks: Mapping[str, Check] = field(default_factory=dict)
    now: Callable[[], datetime] = utc_now


def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


def _now(services: "Given") -> datetime:
    return services.now()


Given = Annotated[Services, Depends(_services)]
Now = Annotated[datetime, Depends(_now)]
