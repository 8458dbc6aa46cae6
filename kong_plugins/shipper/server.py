"""The Redis server that holds a stream: the one at the address, or in a cluster the primary of the stream's slot.

Nothing is retried in here, and no command is sent to another server process than the one that was accepted.
"""

import random
import re
from contextlib import closing
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway_contract.cluster_urls import ClusterAddress, is_cluster_url, parse_cluster_url
from gateway_contract.redis_names import slot_of

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0


class OtherServerError(RedisError):
    """Another server process answers than the accepted one; the command was not sent."""


class StreamServer:
    """For one thread. The first server process that answers is accepted, until `accept_any`."""

    def __init__(self, url: str, *, stream: str) -> None:
        """Raises ValueError: the URL makes no sense."""
        self._url = url
        self._slot = slot_of(stream)
        self._client: redis.Redis | None = None
        # The run id of the accepted server, None while none is.
        self._run_id: str | None = None
        try:
            self._cluster = parse_cluster_url(url) if is_cluster_url(url) else None
            self._nodes = set(self._cluster.nodes if self._cluster else ())
            if self._cluster is None:
                self._client = redis.Redis.from_url(url, **self._options())
        except ValueError as error:
            raise ValueError(f"KM_REDIS_URL: {error}") from None

    def client(self) -> redis.Redis:
        """Return a client of the server; in a cluster it is looked for first, where it is not known.

        Raises RedisError and OSError. Of a client, OtherServerError at its first command.
        """
        if self._client is None:
            self._client = self._find_primary()
        return self._client

    def leave(self) -> None:
        """Close the connections: at the address, or in the cluster, may be another server by now."""
        if self._client is not None:
            self._client.connection_pool.disconnect()
        if self._cluster is not None:
            self._client = None

    def accept_any(self) -> None:
        """Close the connections and accept whoever answers next."""
        self.leave()
        self._run_id = None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _options(self) -> dict[str, Any]:
        return {
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_timeout": ANSWER_TIMEOUT_SECONDS,
            "redis_connect_func": self._connected,
        }

    def _find_primary(self) -> redis.Redis:
        """Ask one node after the other who is the primary of our slot."""
        found: tuple[str, int] | None = None
        last_error: Exception = ConnectionError("no node of the cluster has the stream's slot")
        for host, port in random.sample(sorted(self._nodes), len(self._nodes)):
            try:
                with closing(self._client_of(host, port, redis_connect_func=None)) as client:
                    # as it comes: how redis-py shows it depends on its version
                    client.set_response_callback("CLUSTER SLOTS", lambda answer, **_: answer)
                    answer = client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                last_error = error
                continue
            for first, last, *nodes in answer:
                addresses = [(node[0].decode() if node[0] else host, int(node[1])) for node in nodes]
                self._nodes.update(addresses)
                if first <= self._slot <= last:
                    found = addresses[0]
            if found is not None:
                return self._client_of(*found)
        raise last_error

    def _client_of(self, host: str, port: int, **options: Any) -> redis.Redis:
        address: ClusterAddress = self._cluster or ClusterAddress(())
        return redis.Redis(
            host=host,
            port=port,
            username=address.username or None,
            password=address.password or None,
            ssl=address.tls,
            ssl_ca_certs=address.ca_file or None,
            **{**self._options(), **options},
        )

    def _connected(self, connection: Any) -> None:
        """Run at every (re)connection, also at those that redis-py makes without telling."""
        connection.on_connect()
        connection.send_command("INFO", "server", check_health=False)
        found = re.search(rb"run_id:(\w+)", connection.read_response())
        run_id = found[1].decode() if found else ""
        if self._run_id is None:
            self._run_id = run_id
        elif self._run_id != run_id:
            raise OtherServerError("another Redis process answers")
