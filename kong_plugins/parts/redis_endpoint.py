"""Where Redis is, from a URL.

`redis://[user:password@]host[:port][/db]`, `rediss://...`, `unix:///path[?db=n]`, or a cluster's
(`gateway_contract.cluster_urls`).
"""

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from gateway_contract.cluster_urls import ClusterUrlError, is_cluster_url, parse_cluster_url

DEFAULT_PORT = 6379


class RedisUrlError(ValueError):
    """Not a URL of a Redis. The message never holds the URL, since that may hold a password."""


@dataclass(frozen=True, slots=True)
class RedisEndpoint:
    """`path` is a Unix socket, used instead of host and port where set. `ca_file` is a PEM file for TLS."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str = ""
    tls: bool = False
    ca_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0


@dataclass(frozen=True, slots=True)
class ClusterEndpoint:
    """A Redis Cluster: some of its nodes, any of which tells where the others are."""

    seeds: tuple[RedisEndpoint, ...]


def parse_redis_url(url: str) -> RedisEndpoint | ClusterEndpoint:
    """Read the URL.

    Raises:
        RedisUrlError: another scheme, or a port or database that is no number.
    """
    if is_cluster_url(url):
        return _cluster(url)
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        port = parts.port or DEFAULT_PORT
        database = _database(parts.scheme, parts.path, query)
    except ValueError:
        raise RedisUrlError("port and database must be numbers") from None
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        return RedisEndpoint(path=parts.path, username=username, password=password, database=database)
    if parts.scheme not in {"redis", "rediss"}:
        raise RedisUrlError(
            "the URL must begin with redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://"
        )
    return RedisEndpoint(
        host=parts.hostname or "127.0.0.1",
        port=port,
        tls=parts.scheme == "rediss",
        ca_file=query.get("ssl_ca_certs", [""])[0],
        username=username,
        password=password,
        database=database,
    )


def _cluster(url: str) -> ClusterEndpoint:
    try:
        address = parse_cluster_url(url)
    except ClusterUrlError as error:
        raise RedisUrlError(str(error)) from None
    seeds = (
        RedisEndpoint(
            host=host,
            port=port,
            tls=address.tls,
            ca_file=address.ca_file,
            username=address.username,
            password=address.password,
        )
        for host, port in address.nodes
    )
    return ClusterEndpoint(tuple(seeds))


def _database(scheme: str, path: str, query: dict[str, list[str]]) -> int:
    if "db" in query:
        return int(query["db"][0])
    return 0 if scheme == "unix" else int(path.strip("/") or 0)
