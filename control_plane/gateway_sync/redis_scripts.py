"""The Lua scripts of this feature, loaded from their files, and their Redis client."""

from functools import cache
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript

LUA_DIRECTORY = Path(__file__).with_name("lua")


def create_redis(url: str, *, timeout_seconds: float = 10.0) -> Redis:
    """Return a client that never retries on its own: the loops above it back off, and count."""
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        decode_responses=True,
    )


@cache
def lua_source(name: str) -> str:
    """Return the text of `lua/<name>.lua`."""
    return (LUA_DIRECTORY / f"{name}.lua").read_text(encoding="utf-8")


def load_script(client: Redis, name: str) -> AsyncScript:
    """Return a script bound to the client; it is loaded into a server that does not know it yet."""
    return client.register_script(lua_source(name))
