"""Dying between two steps: before and after every commit, before and after every request to Stripe."""

from types import TracebackType
from typing import Any, Self

import httpx
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session


class Killed(BaseException):
    """The process is gone; nothing that it would still have done is done."""


def was_killed(error: BaseException) -> bool:
    """Say whether that is why something ended, also among tasks that were ended with it."""
    if isinstance(error, BaseExceptionGroup):
        return any(was_killed(one) for one in error.exceptions)
    return isinstance(error, Killed)


class Killer:
    """Counts steps, and kills at the one that it was told to."""

    def __init__(self) -> None:
        self.steps = 0
        self._left: int | None = None

    def kill_after(self, steps: int) -> None:
        """Kill at the step after so many more."""
        self._left = steps

    def spare(self) -> None:
        self._left = None

    def step(self) -> None:
        self.steps += 1
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            self._left = None
            raise Killed


class KillingTransport(httpx.AsyncBaseTransport):
    """Requests to Stripe, with a step before each and after each."""

    def __init__(self, killer: Killer) -> None:
        self._killer = killer
        self._wire = httpx.AsyncHTTPTransport()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._wire.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._killer.step()
        answer = await self._wire.handle_async_request(request)
        await answer.aread()
        self._killer.step()
        return answer

    async def aclose(self) -> None:
        await self._wire.aclose()


def killing_sessions(engine: AsyncEngine, killer: Killer) -> async_sessionmaker[AsyncSession]:
    """Return sessions with a step before each commit and after each."""

    class DyingSession(Session):
        pass

    def step(_session: Any) -> None:
        killer.step()

    event.listen(DyingSession, "before_commit", step)
    event.listen(DyingSession, "after_commit", step)
    return async_sessionmaker(engine, expire_on_commit=False, sync_session_class=DyingSession)
