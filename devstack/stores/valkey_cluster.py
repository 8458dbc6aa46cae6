"""A Valkey Cluster of child processes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from devstack.children import ChildFailedError
from devstack.ports import free_port
from devstack.stores.valkey import EmbeddedValkey
from gateway_contract.cluster_urls import is_cluster_url, parse_cluster_url
from gateway_contract.redis_names import SLOTS

READY_SECONDS = 60.0
NODE_TIMEOUT_MS = 15_000


class EmbeddedValkeyCluster:
    """Primaries with their replicas on 127.0.0.1, in memory only; `nodes` holds the primaries of the start first.

    A replica takes over about twice `node_timeout_ms` after its primary fell silent. A primary that is started
    again before that is empty, and stays the primary.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        primaries: int = 3,
        replicas: int = 0,
        node_timeout_ms: int = NODE_TIMEOUT_MS,
        ports: Sequence[int] = (),
    ) -> None:
        """`replicas` are those of each primary. `ports` are the nodes', in order; any where there are none."""
        self._primaries = primaries
        count = primaries * (1 + replicas)
        self._bus_ports = [free_port() for _ in range(count)]
        self.nodes = [
            EmbeddedValkey(
                data_dir / f"node-{number}",
                port=ports[number] if ports else None,
                options=(
                    *("--cluster-enabled", "yes", "--cluster-port", str(self._bus_ports[number])),
                    *("--cluster-node-timeout", str(node_timeout_ms), "--cluster-announce-ip", "127.0.0.1"),
                    # what is lost with one node is not lost with all of them
                    *("--cluster-require-full-coverage", "no"),
                    # whoever lost its primary for a moment may still take over
                    *("--cluster-replica-validity-factor", "0", "--repl-ping-replica-period", "1"),
                ),
            )
            for number in range(count)
        ]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Returns when every node says that the cluster is ok, and every replica has its primary's data."""
        for node in self.nodes:
            node.start()
        self.form()

    def stop(self) -> None:
        """Harmless when not running."""
        for node in self.nodes:
            node.stop()

    def form(self) -> None:
        """Make running nodes a cluster, where they are not one yet, and wait until it is whole."""
        if self._ask(0, "CLUSTER INFO")["cluster_size"] == "0":
            self._introduce()
        self.wait_whole()

    def wait_whole(self) -> None:
        """Wait until every node says that the cluster is ok. Raises ChildFailedError."""
        self._wait(lambda: all(self._is_whole(number) for number in range(len(self.nodes))), "a whole cluster")

    def flush(self) -> None:
        """Empty every primary."""
        for number in range(len(self.nodes)):
            if self._ask(number, "ROLE")[0] == b"master":
                self._ask(number, "FLUSHALL")

    def primary_of(self, slot: int) -> EmbeddedValkey:
        """Return who has the slot, in the eyes of the first node that answers. Raises ChildFailedError."""
        for number in range(len(self.nodes)):
            try:
                ranges = self._ask(number, "CLUSTER SLOTS")
            except redis.RedisError:
                continue
            port = next(primary[1] for first, last, primary, *_ in ranges if first <= slot <= last)
            return next(node for node in self.nodes if node.port == port)
        raise ChildFailedError("no node of the cluster answers")

    def _introduce(self) -> None:
        """Give out the slots, let the nodes meet, then make replicas of those without slots."""
        for number in range(self._primaries):
            first, end = (SLOTS * part // self._primaries for part in (number, number + 1))
            self._ask(number, "CLUSTER ADDSLOTSRANGE", first, end - 1)
        for number, node in enumerate(self.nodes):
            self._ask(number, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number:
                self._ask(0, "CLUSTER MEET", "127.0.0.1", node.port, self._bus_ports[number])
        self._wait(lambda: all(self._knows_all(number) for number in range(len(self.nodes))), "nodes that met")
        for number in range(self._primaries, len(self.nodes)):
            primary_id = self._ask(number % self._primaries, "CLUSTER MYID")
            self._ask(number, "CLUSTER REPLICATE", primary_id)

    def _knows_all(self, number: int) -> bool:
        nodes = self._ask(number, "CLUSTER NODES")
        return len(nodes) == len(self.nodes) and not any("handshake" in node["flags"] for node in nodes.values())

    def _is_whole(self, number: int) -> bool:
        info = self._ask(number, "CLUSTER INFO")
        if info["cluster_state"] != "ok" or info["cluster_slots_ok"] != str(SLOTS):
            return False
        role = self._ask(number, "ROLE")
        return bool(role[0] == b"master" or role[3] == b"connected")

    def _ask(self, number: int, command: str, *arguments: Any) -> Any:
        with redis.Redis.from_url(self.nodes[number].url, retry=Retry(NoBackoff(), 0), socket_timeout=5) as client:
            return client.execute_command(command, *arguments)

    @staticmethod
    def _wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise ChildFailedError(f"{what} did not come in {READY_SECONDS:.0f} s")
            time.sleep(0.05)


def open_redis(url: str) -> Any:
    """Return a client of one server (it retries nothing) or of a cluster. It answers in bytes."""
    if not is_cluster_url(url):
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5)
    nodes = parse_cluster_url(url).nodes
    return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in nodes])  # type: ignore[no-untyped-call]
