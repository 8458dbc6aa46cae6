"""Clients of Redis: of one server or of a cluster, as `KM_REDIS_URL` says."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError

from gateway_contract.cluster_urls import is_cluster_url, parse_cluster_url

RedisClient: TypeAlias = Redis | RedisCluster

# A cluster's client must ask anew where a slot is after a failover; what we send may be sent twice.
CLUSTER_ATTEMPTS = 3


def create_redis(
    url: str, *, timeout_seconds: float = 10.0, decode_responses: bool = True, read_bytes: int = 65_536
) -> RedisClient:
    """Return a client. Of one server: one that never retries, since the loops above it back off, and count.

    A server that has become a replica is left: the next command connects anew, to whom the address names by then.

    Raises:
        ValueError: the URL makes no sense; the message does not hold it.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_read_size": read_bytes,
        "decode_responses": decode_responses,
    }
    if is_cluster_url(url):
        return _create_cluster(url, options)
    client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    pool = client.connection_pool
    pool.connection_class = _LEAVES_REPLICAS[pool.connection_class]
    return client


def is_cluster(client: RedisClient) -> bool:
    return isinstance(client, RedisCluster)


async def last_name_on_each_server(client: RedisClient, names: Iterable[tuple[int, str]]) -> list[str]:
    """Return, of names given with their slots, the last one on each server that holds any of them."""
    if not isinstance(client, RedisCluster):
        return [name for _, name in names][-1:]
    await client.initialize()
    servers = client.nodes_manager.slots_cache
    found = {servers[slot][0].name if slot in servers else "nobody": name for slot, name in names}
    return list(found.values())


def _create_cluster(url: str, options: dict[str, Any]) -> RedisCluster:
    address = parse_cluster_url(url)
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        username=address.username or None,
        password=address.password or None,
        ssl=address.tls,
        ssl_ca_certs=address.ca_file or None,
        retry=Retry(NoBackoff(), CLUSTER_ATTEMPTS),
        **options,
    )


class _LeavesReplicas(AbstractConnection):
    """A connection that is closed once its server says that it is a replica."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[no-untyped-call]
            raise


class _TcpConnection(_LeavesReplicas, Connection): ...


class _TlsConnection(_LeavesReplicas, SSLConnection): ...


class _UnixConnection(_LeavesReplicas, UnixDomainSocketConnection): ...


_LEAVES_REPLICAS: dict[type[Any], type[Any]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}
