"""The address of a Redis Cluster in `KM_REDIS_URL`, which both sides read.

`redis+cluster://[user:password@]host:port[,host:port...][?ssl_ca_certs=file]`, or `rediss+cluster://` for TLS. Any
of the nodes tells where the others are. A cluster has no database numbers.
"""

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 6379
_SCHEMES = {"redis+cluster": False, "rediss+cluster": True}


class ClusterUrlError(ValueError):
    """Not a URL of a Redis Cluster. The message never holds the URL, since that may hold a password."""


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """`nodes` are some of the cluster's, (host, port) each. `ca_file` is a PEM file for TLS, or empty."""

    nodes: tuple[tuple[str, int], ...]
    tls: bool = False
    ca_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)


def is_cluster_url(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


def parse_cluster_url(url: str) -> ClusterAddress:
    """Read the URL.

    Raises:
        ClusterUrlError: another scheme, no host, a port that is no number, or a database.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ClusterUrlError("the URL of a cluster must begin with redis+cluster:// or rediss+cluster://")
    rest, _, query = rest.partition("?")
    credentials, _, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    if path:
        raise ClusterUrlError("a cluster has no database numbers")
    username, _, password = credentials.partition(":")
    return ClusterAddress(
        nodes=tuple(_node(text) for text in hosts.split(",")),
        tls=_SCHEMES[scheme],
        ca_file=parse_qs(query).get("ssl_ca_certs", [""])[0],
        username=unquote(username),
        password=unquote(password),
    )


def _node(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ClusterUrlError("the port of each node must be a number") from None
    if not host:
        raise ClusterUrlError("each node must be host:port")
    return host, port or DEFAULT_PORT
