"""Reports application events to kong-monetize: typed, batching, retrying, with a buffer on disk.

Owns: the client that operators install in their applications. Does not own: what events cost, or anything of the
server; it shares no code with it.
"""

from kong_monetize_client.async_client import AsyncClient
from kong_monetize_client.client import Client
from kong_monetize_client.errors import (
    BufferFullError,
    ClosedError,
    DirectoryInUseError,
    EventError,
    FlushTimeoutError,
    KongMonetizeError,
)
from kong_monetize_client.options import Options, Rejected

__all__ = [
    "AsyncClient",
    "BufferFullError",
    "Client",
    "ClosedError",
    "DirectoryInUseError",
    "EventError",
    "FlushTimeoutError",
    "KongMonetizeError",
    "Options",
    "Rejected",
]
