"""What a worker asks of Redis, whether that is one server or a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

from kong_plugins.parts.redis_cluster import ClusterLink
from kong_plugins.parts.redis_endpoint import ClusterEndpoint, RedisEndpoint
from kong_plugins.parts.redis_link import RedisLink
from kong_plugins.parts.redis_writes import NodeWrites


class Link(Protocol):
    """`RedisLink` or `ClusterLink`; `slot` is where a cluster keeps the names in the commands."""

    @property
    def is_away(self) -> bool: ...

    @property
    def losses(self) -> int: ...

    def some_endpoint(self) -> RedisEndpoint: ...

    def writes(self, slot: int, /) -> NodeWrites: ...

    def ask(self, commands: Sequence[bytes], slot: int, /) -> list[Any]: ...

    def ask_one(self, command: bytes, slot: int, /) -> Any: ...

    def close(self) -> None: ...


def open_link(endpoint: RedisEndpoint | ClusterEndpoint, *, setup: tuple[bytes, ...] = ()) -> Link:
    """Return a link; it connects when it is first used. `setup`: commands that each new connection runs first."""
    if isinstance(endpoint, ClusterEndpoint):
        return ClusterLink(endpoint, setup=setup)
    return RedisLink(endpoint, setup=setup)
