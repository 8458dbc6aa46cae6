"""Stores that break at a chosen boundary: just before or just after any call that reaches one of them."""

from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


class StoreAwayError(Exception):
    """A store failed, and the process that asked it lives."""


class KilledError(BaseException):
    """The process is gone: nothing that it could still do may happen."""


class Fuse:
    """Blows at the boundary with the given number, once. Each statement, commit and command has two."""

    def __init__(self) -> None:
        self._left = -1
        self._error: type[BaseException] = StoreAwayError
        self.blown = 0

    def arm(self, boundaries: int, error: type[BaseException]) -> None:
        self._left, self._error = boundaries, error

    def disarm(self) -> None:
        self._left = -1

    def burn(self, *_arguments: Any) -> None:
        if self._left < 0:
            return
        self._left -= 1
        if self._left < 0:
            self.blown += 1
            raise self._error

    def attach(self, engine: AsyncEngine) -> AsyncEngine:
        """Break statements and commits of this engine."""
        event.listen(engine.sync_engine, "before_cursor_execute", self.burn)
        event.listen(engine.sync_engine, "after_cursor_execute", self.burn)
        commit = engine.dialect.do_commit

        def fused(connection: Any) -> None:
            self.burn()
            commit(connection)
            self.burn()

        engine.dialect.do_commit = fused  # type: ignore[method-assign]
        return engine


class FusedClient:
    """A client of the event store."""

    def __init__(self, client: Any, fuse: Fuse) -> None:
        self._client = client
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def fused(*arguments: Any, **named: Any) -> Any:
            self._fuse.burn()
            answer = found(*arguments, **named)
            self._fuse.burn()
            return answer

        return fused


class _FusedPipeline(Pipeline):
    fuse: Fuse

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the client's name
        self.fuse.burn()
        answers = await super().execute(raise_on_error)
        self.fuse.burn()
        return answers


class FusedRedis(Redis):
    """A client of Redis."""

    fuse: Fuse

    @classmethod
    def at(cls, url: str, fuse: Fuse) -> Self:
        client = cls.from_url(url)
        client.fuse = fuse
        return client

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        self.fuse.burn()
        answer = await super().execute_command(*arguments, **options)
        self.fuse.burn()
        return answer

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:  # noqa: FBT001, FBT002 - the client's name
        made = _FusedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.fuse = self.fuse
        return made
